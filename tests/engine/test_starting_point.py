"""Where a run starts: at a checkpoint, at the beginning, or not at all; and what the log says of it."""

from pathlib import Path

import pytest
import torch
from pppc.checkpoints import reading
from pppc.engine import resume
from pppc.engine.resume import last_checkpoint, starting_point
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError
from tiny_run import tiny_config

# Without a frozen encoder, so that MODEL.WEIGHTS matters no more once a run has begun.
SHORT = ("SOLVER.MAX_ITER", 4, "PPPC.IMAGENET_PROTOTYPES.USE", "never")


def save(path: Path, iteration: int) -> None:
    """A checkpoint as far as it matters here."""
    trainer = {"config": tiny_config(path.parent, *SHORT).dump(), "processes": 1}
    model = {"weight": torch.arange(1000.0)}
    torch.save({"model": model, "iteration": iteration, "trainer": trainer}, path)


@pytest.fixture
def run_of_four(tmp_path) -> Path:
    """The folder of a run of four iterations."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("model_0000000", "model_0000001", "model_0000002", "model_0000003", "model_final"):
        save(folder / f"{name}.pth", min(int(name[-1]) if name[-1].isdigit() else 3, 3))
    (folder / "last_checkpoint").write_text("model_final.pth")
    (folder / "config.yaml").write_text(tiny_config(folder, *SHORT).dump())
    (folder / "metrics.json").write_text('{"iteration": 3, "total_loss": 1.0}\n')
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_last_checkpoint_is_taken_without_a_word_and_its_checksum_read_once(
    run_of_four, caplog, monkeypatch
):
    read = []
    damage = reading.checkpoint_damage
    for module in (resume, reading):
        monkeypatch.setattr(
            module, "checkpoint_damage", lambda path: read.append(path) or damage(path)
        )
    checkpoint = starting_point(tiny_config(run_of_four, *SHORT), resume=True)
    assert (checkpoint.path.name, checkpoint.iteration) == ("model_final.pth", 3)
    reading.read_weights(str(checkpoint.path), checked=True)
    assert read == [checkpoint.path] and caplog.text == ""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the one of last_checkpoint, a file that is not there"),
        (b"", "the one of last_checkpoint, a file that is empty"),
        (b"\n", "a file that is empty"),
        (b"\xff\xfe\x00", "a file that cannot be read"),
        (b"model_0000009.pth", "model_0000009.pth, which last_checkpoint names and which is not"),
        (b"/old/place/model_final.pth", "/old/place/model_final.pth, which last_checkpoint names"),
        (b"metrics.json", "metrics.json, which last_checkpoint names"),
    ],
)
def test_a_last_checkpoint_that_names_none_is_told_and_the_last_one_taken(
    run_of_four, caplog, content, told
):
    for name in ("model_0000001.pth", "model_0000000.pth"):  # written last
        (run_of_four / name).touch()
    file = run_of_four / "last_checkpoint"
    file.unlink() if content is None else file.write_bytes(content)
    checkpoint = starting_point(tiny_config(run_of_four, *SHORT), resume=True)
    assert checkpoint.iteration == 3
    assert f"Going on from {checkpoint.path.name} instead of " in caplog.text
    assert told in caplog.text and f"in {run_of_four} after iteration 3" in caplog.text


def test_an_older_checkpoint_than_the_last_is_told(run_of_four, caplog):
    (run_of_four / "last_checkpoint").write_text("model_0000001.pth")  # the user goes back
    assert starting_point(tiny_config(run_of_four, *SHORT), resume=True).iteration == 1
    assert "model_0000002.pth, which has more iterations, but is not named by" in caplog.text


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, change_a_byte, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_passed_over(run_of_four, damage, caplog):
    for name in ("model_final.pth", "model_0000003.pth"):
        damage(run_of_four / name)
    checkpoint = starting_point(tiny_config(run_of_four, *SHORT), resume=True)
    assert checkpoint.path.name == "model_0000002.pth" and checkpoint.iteration == 2
    assert "from model_0000002.pth instead of" in caplog.text
    assert "model_final.pth, which is damaged" in caplog.text
    for name in ("model_0000000.pth", "model_0000001.pth", "model_0000002.pth"):
        damage(run_of_four / name)
    before = snapshot(run_of_four)
    with pytest.raises(InputError, match="go on from none of them .*model_0000001.pth"):
        starting_point(tiny_config(run_of_four, *SHORT), resume=True)
    assert snapshot(run_of_four) == before


def test_weights_alone_are_no_run_to_go_on_with(tmp_path):
    torch.save({"model": {}}, tmp_path / "model_final.pth")
    with pytest.raises(InputError, match="holds no state of a training"):
        starting_point(tiny_config(tmp_path), resume=True)


def test_no_checkpoint_is_told_with_the_place_that_was_looked_at(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert starting_point(tiny_config("output/run"), resume=True) is None
    assert (
        f"--resume found no checkpoint in {tmp_path}/output/run (OUTPUT_DIR output/run, seen from "
        f"{tmp_path})" in caplog.text
    )
    assert "training begins with iteration 0" in caplog.text
    assert last_checkpoint(tiny_config(tmp_path), otherwise="evaluating MODEL.WEIGHTS") is None
    assert f"no checkpoint in {tmp_path}: evaluating" in caplog.text
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    assert starting_point(tiny_config(tmp_path), resume=True) is None
    assert "nor model_final.pth, which last_checkpoint names and which is not there" in caplog.text


@pytest.mark.parametrize("copied", [True, False])
def test_a_run_that_was_moved_is_told(run_of_four, tmp_path, caplog, copied):
    """Its config.yaml names the former place."""
    cfg = tiny_config(run_of_four, *SHORT)
    moved = tmp_path / "moved"
    run_of_four.rename(moved)
    if copied:
        run_of_four.mkdir()
        save(run_of_four / "model_0000001.pth", 1)
        (run_of_four / "last_checkpoint").write_text("model_0000001.pth")
    checkpoint = starting_point(cfg, resume=True, config_file=str(moved / "config.yaml"))
    assert checkpoint is None or checkpoint.iteration == 1 and copied
    assert f"to go on there, add OUTPUT_DIR {moved}" in caplog.text
    caplog.clear()
    cfg = tiny_config(moved, *SHORT)
    assert starting_point(cfg, resume=True, config_file=str(moved / "config.yaml")).iteration == 3
    assert caplog.text == ""


def test_a_run_without_a_checkpoint_yet_keeps_its_settings_and_its_metrics(run_of_four, caplog):
    for path in run_of_four.glob("*.pth"):
        path.unlink()
    before = snapshot(run_of_four)
    cfg = tiny_config(run_of_four, *SHORT, "SOLVER.BASE_LR", 0.5)
    with pytest.raises(InputError, match="config.yaml .*SOLVER.BASE_LR was 0.003 and is 0.5"):
        starting_point(cfg, resume=True)
    assert snapshot(run_of_four) == before
    assert starting_point(cfg, resume=True, allow_changes=True) is None
    assert "Going on with another setting: SOLVER.BASE_LR was" in caplog.text
    assert starting_point(tiny_config(run_of_four, *SHORT), resume=True) is None
    folder = RunFolder(run_of_four)
    folder.begin(cfg, 0)
    folder.end()
    assert folder.metrics() == [] and "metrics_2.json is what metrics.json held" in caplog.text
    assert (run_of_four / "metrics_2.json").read_bytes() == before["metrics.json"]
    (run_of_four / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="config.yaml is no configuration of a run"):
        starting_point(cfg, resume=True)


@pytest.mark.parametrize("text", [b"12\n", b"\xff\x00\xfe\n", b"[1]\n", b'{"loss": 1}\n'])
def test_lines_that_are_no_metrics_are_kept_aside(tmp_path, text):
    lines = b'{"iteration": 0}\n' + text + b'{"iteration": 1}\n{"iteration": 2, "cut'
    (tmp_path / "metrics.json").write_bytes(lines)
    folder = RunFolder(tmp_path)
    folder.begin(tiny_config(tmp_path), 1)
    folder.end()
    assert (tmp_path / "metrics.json").read_text() == '{"iteration": 0}\n'
    assert (tmp_path / "metrics_2.json").read_bytes() == lines
    folder.begin(tiny_config(tmp_path), 1)  # the lock was released
    with pytest.raises(InputError, match="another process is training in"):
        RunFolder(tmp_path).begin(tiny_config(tmp_path), 1)
    folder.end()
    assert not (tmp_path / "metrics_3.json").exists()


def test_a_shorter_run_than_the_checkpoint_is_refused(run_of_four):
    cfg = tiny_config(run_of_four, *SHORT, "SOLVER.MAX_ITER", 3)
    with pytest.raises(
        InputError, match="has had 4 iterations already: set SOLVER.MAX_ITER, now 3"
    ):
        starting_point(cfg, resume=True)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("SOLVER.BASE_LR", 0.5, "SOLVER.BASE_LR was 0.003 and is 0.5"),
        ("PPPC.TEACHER.MOMENTUM", 0.5, "is 0.5"),
        ("PPPC.PROTOTYPES.UPDATE_RULE", "batch", "was 'ema' and is 'batch'"),
        ("INPUT.CROP.SIZE", [48, 48], "was [48, 64] and is [48, 48]"),
        ("SEED", 7, "SEED was 43 and is 7"),
    ],
)
def test_other_settings_are_refused_with_their_differences(run_of_four, key, value, shown):
    cfg = tiny_config(run_of_four, *SHORT, key, value)
    before = snapshot(run_of_four)
    with pytest.raises(InputError) as error:
        starting_point(cfg, resume=True)
    assert key in str(error.value) and shown in str(error.value)
    assert "--allow-changes" in str(error.value) and "\n" not in str(error.value)
    assert snapshot(run_of_four) == before
    assert starting_point(cfg, resume=True, allow_changes=True).iteration == 3


def test_allowed_settings_may_change(run_of_four):
    cfg = tiny_config(
        run_of_four, *SHORT, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_TO_KEEP", 3,
        "TEST.EVAL_PERIOD", 2, "DATASETS.TEST", "('cityscapes_val',)", "VIS_PERIOD", 1,
        "DATALOADER.NUM_WORKERS", 1, "SOLVER.MAX_ITER", 9, "MODEL.WEIGHTS", "x.pth", "SEED", -1,
    )  # fmt: skip
    assert starting_point(cfg, resume=True).iteration == 3
    with pytest.raises(InputError, match="processes were 1 and are 2"):
        starting_point(cfg, resume=True, processes=2)


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "metrics.json", "log.txt", "model_final.pth", "mine.pth", "last_checkpoint",
     "events.out.tfevents.1.host.1.0", "log.txt.rank1", "pictures"],
)  # fmt: skip
def test_a_new_run_overwrites_nothing(tmp_path, name):
    (tmp_path / name).write_text("of another run")
    with pytest.raises(InputError, match=f"holds a run already .*{name}.*--resume"):
        starting_point(tiny_config(tmp_path), resume=False)


def test_what_default_setup_has_just_written_is_no_run(tmp_path):
    cfg = tiny_config(tmp_path, "SEED", -1)
    for name in ("log.txt", "log.txt.rank1"):
        (tmp_path / name).touch()
    (tmp_path / "config.yaml").write_text(cfg.dump())
    cfg.SEED = 7  # drawn by the trainer
    assert starting_point(cfg, resume=False) is None
    with pytest.raises(InputError, match="holds a run already"):
        starting_point(tiny_config(tmp_path, *SHORT), resume=False)
    (tmp_path / "metrics.json").touch()
    with pytest.raises(InputError, match="holds a run already"):
        starting_point(cfg, resume=False)


def test_an_empty_folder_and_files_of_others_are_no_run(tmp_path):
    for name in ("notes.txt", "inference"):
        (tmp_path / name).mkdir()
    assert starting_point(tiny_config(tmp_path), resume=False) is None
    assert starting_point(tiny_config(tmp_path), resume=True) is None
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file: choose another OUTPUT_DIR"):
        starting_point(tiny_config(tmp_path / "file"), resume=False)
