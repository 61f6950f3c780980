"""Whole runs through the command line, on small demo data."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from conftest import REPOSITORY, run_tool
from detectron2.engine import default_argument_parser
from pppc.cli import train as train_command
from pppc.data.train_ids import CITYSCAPES_CLASSES
from tiny_run import OPTIONS, demo_config
from torch.multiprocessing import ProcessContext, ProcessRaisedException, start_processes


def train(method: str, output: Path, root: Path, *arguments: str, opts: list[str] = ()):
    """Run tools/train_net.py on the demo pair."""
    return run_tool(
        "train_net.py", "--config-file", demo_config(method), *arguments,
        "OUTPUT_DIR", output, *OPTIONS, *opts,
        DETECTRON2_DATASETS=str(root),
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(demo_datasets, tmp_path_factory) -> Path:
    """The output folder of a PPPC run."""
    output = tmp_path_factory.mktemp("runs") / "pppc"
    run = train("pppc", output, demo_datasets, opts=["TEST.REPORT_IMAGES", "2"])
    assert run.returncode == 0, run.stderr[-3000:]
    return output


def _metrics(output: Path) -> dict:
    lines = (output / "metrics.json").read_text().splitlines()
    return {key: value for line in lines for key, value in json.loads(line).items()}


def test_a_run_leaves_what_users_of_detectron2_expect(finished):
    for name in ("model_final.pth", "model_best_by_labels.pth", "model_selected.pth", "last_checkpoint",
                 "config.yaml", "log.txt", "report.html", "report.json", "report.csv"):  # fmt: skip
        assert (finished / name).is_file(), name
    assert list(finished.glob("events.out.tfevents.*"))
    assert (finished / "pictures/0000005.png").stat().st_size > 1000
    metrics = _metrics(finished)
    for name in ("segmentation_source", "segmentation_mixed", "contrast_source",
                 "contrast_target", "kl_source"):  # fmt: skip
        assert metrics[f"loss_{name}"] > 0, name
    assert 0 < metrics["pseudo_label/confident_share"] <= 1
    assert metrics["prototypes/classes_seen"] > 5
    assert 0 <= metrics["sem_seg/mIoU"] <= 100
    told = json.loads((finished / "report.json").read_text())["runs"]["pppc"]
    assert told["iou"]["mean"] == metrics["sem_seg/mIoU"] and len(told["iou"]) > 5
    assert told["iou"]["road"] == metrics["sem_seg/IoU-road"]
    assert told["ran"]["memory at most"] == f"{metrics['memory_gib']:.2f} GiB"
    assert "torch " in told["ran"]["versions"] and told["ran"]["iterations"] == "6 of 6"
    checkpoint = torch.load(finished / "model_final.pth", weights_only=True)
    assert checkpoint["class_names"] == list(CITYSCAPES_CLASSES)
    state = checkpoint["model"]
    student, teacher = (
        {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        for part in ("student.", "teacher.")
    )
    assert student.keys() == teacher.keys() and student
    weights = [key for key in student if key.startswith("backbone") and key.endswith(".weight")]
    assert any(not torch.equal(student[key], teacher[key]) for key in weights)
    assert (state["prototypes.num_updates"] > 0).sum() > 5


def test_eval_only_gives_the_figures_of_the_training_and_leaves_its_files(finished, demo_datasets):
    config = (finished / "config.yaml").read_bytes()
    (finished / "inference").mkdir()
    (finished / "inference/results.json").write_text("of another evaluation")
    run = train(
        "pppc", finished, demo_datasets, "--eval-only",
        opts=["MODEL.WEIGHTS", str(finished / "model_final.pth")],
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    results = json.loads((finished / "inference/results_2.json").read_text())
    assert results["options"][:2] == ["OUTPUT_DIR", str(finished)]
    assert results["options"][-1] == str(finished / "model_final.pth")
    results = results["sem_seg"]
    assert (finished / "inference/results.json").read_text() == "of another evaluation"
    trained = _metrics(finished)
    assert results["mIoU"] == pytest.approx(trained["sem_seg/mIoU"])
    assert results["IoU-road"] == pytest.approx(trained["sem_seg/IoU-road"])
    assert re.search(r"\| road +\|", run.stdout)
    assert (finished / "config.yaml").read_bytes() == config


@pytest.mark.parametrize("method", ["source_only", "dacs"])
def test_baselines_train_without_the_contrast(method, demo_datasets, tmp_path):
    run = train(method, tmp_path / method, demo_datasets, opts=["SOLVER.MAX_ITER", "2"])
    assert run.returncode == 0, run.stderr[-3000:]
    metrics = _metrics(tmp_path / method)
    assert ("loss_segmentation_mixed" in metrics) == (method == "dacs")
    assert not any(name.startswith("loss_contrast") for name in metrics)


def _error(run) -> str:
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: "), run.stderr[-3000:]
    assert "eta:" not in run.stdout  # nothing was trained
    return last


def test_wrong_input_ends_with_one_line_before_training(finished, demo_datasets, tmp_path):
    missing = _error(train("pppc", tmp_path / "a", tmp_path))
    assert "gta/images" in missing and "DETECTRON2_DATASETS" in missing
    misspelt = _error(train("pppc", tmp_path / "b", demo_datasets,
                            opts=["DATASETS.TEST", "('cityscapes_vall',)"]))  # fmt: skip
    assert "cityscapes_vall" in misspelt and "cityscapes_val " in misspelt + " "
    nothing = _error(train("pppc", tmp_path / "b", demo_datasets, "--eval-only", "--resume"))
    assert "nothing to evaluate" in nothing
    key = _error(train("pppc", tmp_path / "b", demo_datasets, opts=["SOLVER.MAX_ITR", "3"]))
    assert "SOLVER.MAX_ITR" in key
    overwritten = _error(train("pppc", finished, demo_datasets))
    assert str(finished) in overwritten and "--resume" in overwritten
    other = _error(train("dacs", tmp_path / "c", demo_datasets,
                         opts=["MODEL.TIMM.NAME", "test_convnext",
                               "MODEL.WEIGHTS", str(finished / "model_final.pth")]))  # fmt: skip
    assert "model_final.pth does not fit" in other and "student.sem_seg_head" in other


def one_that_fails_and_one_that_hears_nothing(rank: int) -> None:
    if rank == 0:
        time.sleep(2)  # processes take seconds to begin
        raise RuntimeError("made up")
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL})
    time.sleep(600)


def test_torchrun_starts_a_run_on_two_machines(demo_datasets, tmp_path):
    """Of this machine's own: a launch for each on the loopback device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    encoder, prototypes = tmp_path / "encoder.pth", "PPPC.IMAGENET_PROTOTYPES"
    torch.save(timm.create_model("test_resnet").state_dict(), encoder)
    opts = [*OPTIONS, "SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()", "TEST.SELECTION.IMAGES", "0",
            "VIS_PERIOD", "0", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "run"),
            f"{prototypes}.USE", "always", f"{prototypes}.WEIGHTS", str(encoder)]  # fmt: skip
    environment = os.environ | {"DETECTRON2_DATASETS": str(demo_datasets), "OMP_NUM_THREADS": "1"}
    launches = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", rank,
             "--master-addr", "127.0.0.1", "--master-port", port, REPOSITORY / "tools/train_net.py",
             "--config-file", demo_config("pppc"), *opts],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    for launch in launches:
        _, errors = launch.communicate()
        assert launch.returncode == 0, errors[-3000:]
    trained = torch.load(tmp_path / "run/model_final.pth", weights_only=True)
    assert trained["trainer"]["processes"] == 2
    assert trained["model"]["imagenet_prototypes.sums"].any()
    assert (tmp_path / "run/log.txt.rank1").is_file()


def test_a_process_that_waits_for_a_failed_one_is_ended(monkeypatch):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(train_command, "SECONDS_TO_END", 1)
    monkeypatch.setattr(
        train_command,
        "launch",
        lambda *_, **__: start_processes(
            one_that_fails_and_one_that_hears_nothing, nprocs=2, start_method="fork"
        ),
    )
    join = ProcessContext._join_procs_with_timeout  # PyTorch's own patience would do it, too
    monkeypatch.setattr(ProcessContext, join.__name__, lambda context, seconds: join(context, 600))
    try:
        with pytest.raises(ProcessRaisedException, match="made up"):
            train_command.run_processes(default_argument_parser().parse_args(["--num-gpus", "2"]))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
