"""Runs that go on where they stopped."""

import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import timm
import torch
from conftest import Tool, run_tool
from detectron2.engine import HookBase
from pppc.checkpoints.reading import checkpoint_damage
from pppc.engine import Trainer, run_hooks
from pppc.engine.resume import starting_point
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError
from tiny_run import OPTIONS, demo_config, tiny_config

SHORT = ("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 0, "VIS_PERIOD", 0, "DATASETS.TEST", "()")


class Rates(HookBase):
    """The learning rate of every parameter group that each step was made with."""

    def __init__(self):
        self.rates: list[list[float]] = []

    def before_step(self):
        self.rates.append([group["lr"] for group in self.trainer.optimizer.param_groups])


def train(output: Path, *opts: object, resume: bool = False) -> list[list[float]]:
    """Train in this process; returns the learning rates of the steps."""
    trainer = Trainer(tiny_config(output, *SHORT, *opts))
    trainer.resume_or_load(resume)
    rates = Rates()
    trainer.register_hooks([rates])
    trainer.train()
    return rates.rates


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def assert_same_model(*folders: Path) -> None:
    one, other = (torch.load(f / "model_final.pth", weights_only=True)["model"] for f in folders)
    assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)


@pytest.fixture(scope="module")
def four_iterations(demo_datasets, tmp_path_factory) -> Path:
    """The folder of a run of 4 iterations with checkpoints after each."""
    output = tmp_path_factory.mktemp("resume") / "four"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(demo_datasets))
        train(output, "SOLVER.CHECKPOINT_PERIOD", 1)
    return output


@pytest.fixture
def run_of_four(four_iterations, tmp_path, datasets_root) -> Path:
    """A copy of that folder, for a test to change."""
    return shutil.copytree(four_iterations, tmp_path / "run")


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_a_longer_run_has_the_rates_of_its_own_schedule(run_of_four, tmp_path, power):
    opts = ["SOLVER.POLY_LR_POWER", power]
    if power != 1:
        train(tmp_path / "other", *opts)
        run_of_four = tmp_path / "other"
    straight = train(tmp_path / "straight", "SOLVER.MAX_ITER", 8, *opts)
    resumed = train(run_of_four, "SOLVER.MAX_ITER", 8, *opts, resume=True)
    assert resumed == straight[4:]
    base = tiny_config(tmp_path).SOLVER.BASE_LR
    # The backbone's group: (1 - t / 8) ** power of the base rate.
    assert [rates[0] for rates in resumed] == pytest.approx(
        [base * (1 - t / 8) ** power for t in range(4, 8)]
    )


def test_what_a_checkpoint_restores_does_not_beat_the_configuration(run_of_four):
    cfg = tiny_config(
        run_of_four, *SHORT, "SOLVER.MAX_ITER", 8, "SOLVER.BASE_LR", 0.5,
        "SOLVER.WEIGHT_DECAY", 0.25, "PPPC.PROTOTYPES.MOMENTUM", 0.125,
    )  # fmt: skip
    trainer = Trainer(cfg)
    trainer.start_from(starting_point(cfg, resume=True, allow_changes=True))
    rates = Rates()
    trainer.register_hooks([rates])
    trainer.train()
    assert rates.rates[0][0] == pytest.approx(0.5 * (1 - 4 / 8))
    fresh = Trainer.build_optimizer(cfg, trainer._trainer.segmentor)
    for group, configured in zip(trainer.optimizer.param_groups, fresh.param_groups):
        assert group["weight_decay"] == configured["weight_decay"]
    assert 0.25 in {group["weight_decay"] for group in fresh.param_groups}
    assert trainer._trainer.segmentor.prototypes.momentum == 0.125
    assert "BASE_LR: 0.5" in (run_of_four / "config.yaml").read_text()


def test_a_run_goes_on_bit_for_bit_with_each_iteration_once(run_of_four, tmp_path, four_iterations):
    """From the middle, with what a kill leaves: a cut line, later lines, unfinished files."""
    for path in run_of_four.glob("*.pth"):
        if path.name != "model_0000001.pth":
            path.unlink()
    (run_of_four / "partial_123_model_0000002.pth").touch()
    with open(run_of_four / "metrics.json", "w") as file:
        for iteration in (0, 1, 2):
            file.write(json.dumps({"iteration": iteration, "kept": 1.5}) + "\n")
        file.write('{"iteration": 3, "lo')
    train(run_of_four, "SOLVER.CHECKPOINT_PERIOD", 1, resume=True)
    lines = [json.loads(line) for line in (run_of_four / "metrics.json").read_text().splitlines()]
    kept = {line["iteration"]: "kept" in line for line in lines}
    assert kept == {0: True, 1: True, 2: False, 3: False} and len(lines) == 4
    assert not list(run_of_four.glob("partial_*"))
    assert_same_model(four_iterations, run_of_four)


def test_what_resume_warns_of_is_in_the_log(demo_datasets, tmp_path):
    """In a folder whose name means something to addresses and patterns, by a file below ~."""
    folder = tmp_path / "a?b=c #d;e%20[f]*:é"
    (tmp_path / "mine.yaml").write_text(tiny_config(folder, *SHORT).dump())
    command = (
        "train_net.py", "--config-file=~/mine.yaml", "--resume", "--allow-changes", "OUTPUT_DIR",
        folder, "SOLVER.CHECKPOINT_PERIOD", 1,
    )  # fmt: skip
    environment = {"DETECTRON2_DATASETS": str(demo_datasets), "HOME": str(tmp_path)}
    for options in ([], ["SOLVER.MAX_ITER", 5, "SOLVER.BASE_LR", 0.5]):
        run = run_tool(*command, *options, **environment)
        assert run.returncode == 0, run.stderr
        (folder / "model_final.pth").write_bytes(b"cut")
        (folder / "log.txt").rename(folder / f"log_{len(options)}.txt")
    for log, told in (
        ("log_0.txt", ["--resume found no checkpoint in"]),
        ("log_4.txt", ["Going on from model_0000003.pth instead of model_final.pth, which is damaged",
                       "Going on with another setting: SOLVER.BASE_LR was"]),
    ):  # fmt: skip
        lines = (folder / log).read_text().splitlines()
        warnings = [line for line in lines if "pppc.engine.resume WARNING" in line]
        assert len(warnings) == len(told) and all(map(str.__contains__, warnings, told)), warnings
    assert run.stdout.count("Going on") == 2 and str(folder) in run.stdout
    weights = folder / "model_0000004.pth"
    evaluated = run_tool(*command[:2], "--eval-only", *command[4:], "MODEL.WEIGHTS", weights,
                         "DATASETS.TEST", "('cityscapes_val',)", **environment)  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_seed_that_was_drawn_is_kept(tmp_path, datasets_root):
    train(tmp_path, "SEED", -1, "SOLVER.MAX_ITER", 1)
    checkpoint = starting_point(tiny_config(tmp_path, *SHORT, "SEED", -1), resume=True)
    assert "SEED: -1" not in checkpoint.config
    with pytest.raises(InputError, match="SEED was"):
        starting_point(tiny_config(tmp_path, *SHORT, "SEED", 0), resume=True)


def test_the_last_periodic_checkpoints_stay(tmp_path, datasets_root):
    train(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_TO_KEEP", 2)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    whole = ["model_0000002.pth", "model_0000003.pth", "model_final.pth", "model_selected.pth"]
    assert names == whole
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_a_full_disk_is_found_after_the_first_step(tmp_path, datasets_root, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=6_000_000))
    with pytest.raises(InputError, match="MAX_TO_KEEP") as error:
        train(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", 1)
    assert not list((tmp_path / "run").glob("*.pth"))
    # Four periodic ones, the final one, the selected one and one being written.
    assert "0.006 GB free, checkpoints need 7 times" in str(error.value)
    size, state = run_hooks._Size(), {"model": torch.zeros(1000, 1000)}
    torch.save(state, size)
    with open(tmp_path / "file", "wb") as file:
        torch.save(state, file)
    assert size.bytes == (tmp_path / "file").stat().st_size


def test_two_processes_cannot_train_in_one_folder(tmp_path, datasets_root):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another process is training in"):
        train(tmp_path)
    assert snapshot(tmp_path) == {}
    os.close(descriptor)
    train(tmp_path, "SOLVER.MAX_ITER", 1)


def test_an_evaluation_that_a_kill_prevented_is_made_up_for(tmp_path, datasets_root):
    """With other methods' parts, too: what they draw and compare with is the same after a resume."""
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "encoder.pth")
    opts = (
        "TEST.EVAL_PERIOD", 2, "DATASETS.TEST", "('cityscapes_val',)", "SOLVER.CHECKPOINT_PERIOD", 2,
        "PPPC.MASKING.LOSS_WEIGHT", 1.0, "PPPC.FEATURE_DISTANCE.LOSS_WEIGHT", 0.005,
        "PPPC.FEATURE_DISTANCE.WEIGHTS", str(tmp_path / "encoder.pth"),
        "PPPC.FEATURE_DISTANCE.CLASSES", "['road', 'sky', 'building']",
        "PPPC.IMAGENET_PROTOTYPES.USE", "always", "PPPC.IMAGENET_PROTOTYPES.PREDICTION", True,
        "PPPC.IMAGENET_PROTOTYPES.WEIGHTS", str(tmp_path / "encoder.pth"),
    )  # fmt: skip
    train(tmp_path / "whole", *opts)
    whole = RunFolder(tmp_path / "whole").metrics()
    assert [line["iteration"] for line in whole if "sem_seg/mIoU" in line] == [1, 3]
    for name in ("segmentation_masked", "feature_distance_source"):
        assert max(line.get(f"loss_{name}", 0) for line in whole) > 0, name
    both = ["model_selected.pth", "model_0000001.pth", "model_0000003.pth"]
    for last, kept in ((1, both[1:2]), (3, both)):
        folder = tmp_path / f"killed_{last}"
        folder.mkdir()
        for name in (*kept, "selection.npz"):
            shutil.copy(tmp_path / "whole" / name, folder)
        (folder / "last_checkpoint").write_text(kept[-1])
        lines = [dict(line) for line in whole if line["iteration"] <= last]
        (line,) = (line for line in lines if line["iteration"] == last)
        for name in [name for name in line if name.startswith(("sem_seg", "selection"))]:
            del line[name]
        line["only here"] = 1.0
        (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        train(folder, *opts, resume=True)
        again = {line["iteration"]: line for line in RunFolder(folder).metrics()}
        assert len(again) == len(RunFolder(folder).metrics())
        for line in whole:
            for name, value in line.items():
                if name.startswith(("sem_seg/", "selection/")):
                    assert again[line["iteration"]][name] == value, name
        assert again[last]["only here"] == 1.0
        assert_same_model(tmp_path / "whole", folder)
        for name in ("final", "best_by_labels", "selected"):
            assert (folder / f"model_{name}.pth").is_file()


def test_the_best_model_is_kept_over_a_resume(tmp_path, datasets_root, monkeypatch):
    """Figures by iteration, as an evaluation would give them."""
    figures = {0: 30.0, 1: 40.0, 2: 35.0, 3: 40.0, 4: 39.0, 5: 41.0}
    trainers = []

    def evaluate(trainer, cfg, model, evaluators):
        done = min(trainers[-1].iter, trainers[-1].max_iter - 1)
        return {"sem_seg": {"mIoU": figures[done]}}

    monkeypatch.setattr(Trainer, "test", evaluate)
    saved = []
    for max_iter in (4, 6):
        opts = ("TEST.EVAL_PERIOD", 1, "DATASETS.TEST", "('cityscapes_val',)")
        trainer = Trainer(tiny_config(tmp_path, *SHORT, *opts, "SOLVER.MAX_ITER", max_iter))
        trainers.append(trainer)
        trainer.resume_or_load(resume=max_iter == 6)
        trainer.train()
        best = torch.load(tmp_path / "model_best_by_labels.pth", weights_only=True)
        saved.append((best["iteration"], best["best"]))
    assert saved == [(1, {"sem_seg/mIoU": 40.0}), (5, {"sem_seg/mIoU": 41.0})]


def test_the_last_teacher_has_the_last_student_and_its_statistics(four_iterations):
    """momentum(4) = 3/4: the mean of the students after 0, 1, 2, 3 and 4 steps, as published."""
    states = [
        torch.load(four_iterations / f"model_{i:07d}.pth", weights_only=True)["model"]
        for i in range(4)
    ]
    weight = next(
        key for key in states[0] if key.startswith("student.backbone") and key.endswith(".weight")
    )
    of_teacher = weight.replace("student.", "teacher.")
    for i in (1, 2, 3):
        keep = 1 - 1 / (i + 2)
        expected = keep * states[i - 1][of_teacher] + (1 - keep) * states[i][weight]
        assert torch.allclose(states[i][of_teacher], expected, atol=1e-7)
    statistics = [key for key in states[3] if key.startswith("student.") and "running" in key]
    assert statistics
    for key in statistics:
        assert torch.equal(states[3][key], states[3][key.replace("student.", "teacher.")])


def test_killed_runs_end_as_the_one_that_was_left_alone(demo_datasets, tmp_path):
    """Real processes and signals, at moments of a fixed seed."""
    killed = run_tool(
        "research/kill_runs.py", "--config-file", demo_config("pppc"), "--output",
        tmp_path / "runs", "--kills", 2, "--seed", 3, *OPTIONS, "SOLVER.MAX_ITER", 25,
        "TEST.EVAL_PERIOD", 10, DETECTRON2_DATASETS=str(demo_datasets),
    )  # fmt: skip
    assert killed.returncode == 0, killed.stdout + killed.stderr
    record = json.loads((tmp_path / "runs/kills.json").read_text())
    assert len(record["kills"]) == 2 and record["problems"] == []


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_signal_to_all_processes_of_a_run_writes_a_checkpoint(
    demo_datasets, tmp_path, number, processes
):
    """As Ctrl-C and batch systems send it: to the loaders' workers, too."""
    tool = Tool(
        "train_net.py", "--config-file", demo_config("pppc"), "--num-gpus", processes, *OPTIONS,
        "SOLVER.MAX_ITER", 100_000, "SOLVER.CHECKPOINT_PERIOD", 100_000, "TEST.EVAL_PERIOD", 0,
        "DATALOADER.NUM_WORKERS", 2, "OUTPUT_DIR", tmp_path / "run",
        DETECTRON2_DATASETS=str(demo_datasets),
    )  # fmt: skip
    while tool.process.is_alive() and not list((tmp_path / "run/pictures").glob("*")):
        time.sleep(0.1)  # until the fifth step
    os.killpg(tool.process.pid, number)
    run = tool.end()
    errors = run.stderr.splitlines()
    assert run.returncode == 128 + number, errors
    (checkpoint,) = (tmp_path / "run").glob("*.pth")
    assert errors[-1] == (
        f"stopped by {number.name} after iteration {int(checkpoint.stem[-7:])}; {checkpoint} is "
        "written: continue with --resume"
    )
    assert "Traceback" not in "".join(errors)
    assert checkpoint_damage(checkpoint) is None


def test_two_processes_end_with_one_line_and_status_2(tmp_path):
    run = run_tool(
        "train_net.py", "--config-file", demo_config("pppc"), "--num-gpus", 2, "OUTPUT_DIR",
        tmp_path / "out", "MODEL.DEVICE", "cpu", DETECTRON2_DATASETS=str(tmp_path),
    )  # fmt: skip
    assert run.returncode == 2, run.stderr
    errors = [line for line in run.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1 and errors[0].startswith("error: gta_train: no folder")
    assert "Traceback" not in run.stderr and not (tmp_path / "out").exists()
