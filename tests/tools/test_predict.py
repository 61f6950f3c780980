"""Predictions of one's own files, as they lie."""

import csv
import math
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pppc
import pytest
from conftest import REPOSITORY, run_tool
from PIL import Image
from tiny_run import run_folder

FOLDERS = {"masks", "color", "overlay", "confidence", "uncertainty"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder."""
    return run_folder(tmp_path_factory.mktemp("run"))


@pytest.fixture
def predict(run, tmp_path, monkeypatch, capsys):
    """Run the tool in this process, in a folder of its own: its exit status, what it printed, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, model: Path = run) -> tuple[int, str, list[str]]:
        command = ["predict.py", "--model", model, "--output", "out", *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(REPOSITORY / "tools/predict.py"), run_name="__main__")
        printed = capsys.readouterr()
        errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        return end.value.code, printed.out.splitlines()[-1] if printed.out else "", errors

    return call


def image(path: Path, width: int = 40, height: int = 30) -> Path:
    """A photograph of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)) + width)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_predicted_as_it_lies_and_bad_files_named_at_the_end(run, tmp_path):
    photos = tmp_path / "my photos"
    good = [image(photos / "night 1/a.png"), image(photos / "night 1/deep/b.JPG", 30, 70)]
    (photos / "bad.png").write_bytes(good[0].read_bytes()[:-30])
    (photos / "notes.txt").write_text("no image")
    image(photos / ".hidden/c.png")
    out = tmp_path / "out"
    called = run_tool(
        "predict.py", "--model", run, "--input", photos, "--output", out, "--window", 64,
        "MODEL.DEVICE", "cpu", DETECTRON2_DATASETS=str(tmp_path / "nowhere"),
    )  # fmt: skip
    assert called.returncode == 1, called.stderr[-3000:]
    assert called.stderr.splitlines()[-1].startswith(f"error: {photos}/bad.png: not a whole image")
    assert called.stdout.splitlines()[-1] == f"{out}: 2 predicted"
    names = ("night 1/a", "night 1/deep/b")
    files = {f"{f}/{n}.{'jpg' if f == 'overlay' else 'png'}" for f in FOLDERS for n in names}
    assert written(out) == files | {"predictions.csv"}
    model = pppc.load(run)
    rows = table(out / "predictions.csv")
    assert [row["image"] for row in rows] == list(map(str, good))
    for path, name, row in zip(good, names, rows):
        result = model.predict(path, window=64)
        read = {f: np.asarray(Image.open(out / f / f"{name}.png")) for f in FOLDERS - {"overlay"}}
        np.testing.assert_array_equal(read["masks"], result.labels)
        color = np.asarray(Image.open(out / "color" / f"{name}.png").convert("RGB"))
        np.testing.assert_array_equal(color, np.array(result.colors)[result.labels])
        assert read["confidence"].max() > 255 and read["uncertainty"].max() > 255  # of 16 bits
        for folder, values in (
            ("confidence", result.confidence),
            ("uncertainty", result.uncertainty / math.log(len(result.names))),
        ):
            np.testing.assert_allclose(read[folder] / 65535, values, atol=1e-5)
        assert row["name"] == name and float(row["seconds"]) > 0
        assert float(row["confidence"]) == pytest.approx(result.confidence.mean(), abs=1e-4)
        for number, label in enumerate(result.names):
            share = (result.labels == number).mean()
            assert float(row[label]) == pytest.approx(share, abs=1e-4)
        with Image.open(out / "overlay" / f"{name}.jpg") as overlay:
            height, width = result.labels.shape
            assert overlay.width > width and overlay.height >= height  # with a legend


def test_what_is_there_is_kept_and_parts_join(predict, tmp_path):
    for name in ("a.png", "a.jpg", "b/a.png", "c.png"):
        image(tmp_path / "in" / name)
    assert predict("--input", "in", "--shard", "2/2")[:2] == (0, f"{tmp_path}/out: 2 predicted")
    assert predict("--input", "in/**/*.png", "in/a.jpg", "--shard", "1/2")[0] == 0
    assert {path.name for path in tmp_path.glob("out/*.csv")} == {
        "predictions_1_of_2.csv",
        "predictions_2_of_2.csv",
    }
    masks = {"a.png.png", "a.jpg.png", "b/a.png", "c.png"}  # two of one name keep their endings
    assert written(tmp_path / "out/masks") == masks
    (tmp_path / "out/overlay/c.jpg").unlink()
    kept = tmp_path / "out/masks/b/a.png"
    kept.write_text("mine")
    line = f"{tmp_path}/out: 1 predicted, 3 kept (--overwrite predicts them again)"
    assert predict("--input", "in") == (0, line, [])
    assert (tmp_path / "out/overlay/c.jpg").is_file() and kept.read_text() == "mine"
    (joined,) = tmp_path.glob("out/*.csv")
    assert {f"{row['name']}.png" for row in table(joined)} == masks
    assert predict("--input", "in", "--overwrite")[:2] == (0, f"{tmp_path}/out: 4 predicted")
    assert len(table(joined)) == 4 and cv2.imread(str(kept)).shape == (30, 40, 3)
    # Another folder's image of a name that is taken.
    image(tmp_path / "other/c.png")
    status, _, (error,) = predict("--input", "other")
    assert status == 1 and f"{tmp_path}/other/c.png: c is the prediction of" in error
    # What lies in the output is no input.
    assert predict("--input", ".")[1].startswith(f"{tmp_path}/out: 5 predicted")


def test_processes_share_the_inputs_and_only_what_is_asked_for_is_written(run, tmp_path):
    photos = tmp_path / "in"
    for number in range(5):
        image(photos / f"{number}.png")
    (photos / "bad.png").write_bytes(b"no image")
    called = run_tool(
        "predict.py", "--model", run, "--input", photos, "--output", tmp_path / "out",
        "--num-gpus", 2, "--save", "masks,confidence", "--batch", 2, "--augment",
    )  # fmt: skip
    assert called.returncode == 1, called.stderr[-3000:]
    assert called.stdout.splitlines()[-1] == f"{tmp_path}/out: 5 predicted"
    assert called.stderr.splitlines()[-1].startswith(f"error: {photos}/bad.png")
    files = {f"{folder}/{n}.png" for folder in ("masks", "confidence") for n in range(5)}
    assert written(tmp_path / "out") == files | {"predictions.csv"}
    result = pppc.load(run).predict(photos / "3.png", mirror=True, scales=(0.75, 1, 1.25))
    mask = np.asarray(Image.open(tmp_path / "out/masks/3.png"))
    assert (mask == result.labels).mean() > 0.99
    assert [row["name"] for row in table(tmp_path / "out/predictions.csv")] == list("02413")


def test_a_video_has_a_mask_for_each_nth_frame_and_an_overlay(predict, tmp_path):
    clip = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48)
    )
    for value in range(0, 250, 50):
        clip.write(np.full((48, 64, 3), value, np.uint8))
    clip.release()
    (tmp_path / "cut.mp4").write_bytes(b"no video")
    status, line, (error,) = predict("--input", "clip.avi", "cut.mp4", "--every", 2, "--augment")
    assert status == 1 and "cut.mp4: no video that OpenCV can read" in error
    assert line == f"{tmp_path}/out: 3 predicted"
    assert written(tmp_path / "out/masks") == {f"clip/{i:06d}.png" for i in (0, 2, 4)}
    overlay = cv2.VideoCapture(str(tmp_path / "out/overlay/clip.mp4"))
    assert overlay.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and overlay.get(cv2.CAP_PROP_FPS) == 5
    before = (tmp_path / "out/overlay/clip.mp4").stat().st_mtime_ns
    assert "3 kept" in predict("--input", "clip.avi", "--every", 2)[1]
    assert (tmp_path / "out/overlay/clip.mp4").stat().st_mtime_ns == before


def test_a_model_without_contrast_in_half_precision_and_a_folder_of_another_model(
    predict, tmp_path, monkeypatch
):
    path = image(tmp_path / "a.png")
    dacs = run_folder(tmp_path / "dacs", method="dacs")
    status, _, (error,) = predict("--input", path, "--save", "uncertainty", model=dacs)
    assert status == 2 and "gives no uncertainty" in error and not (tmp_path / "out").exists()
    status, line, _ = predict("--input", path, "--half", model=dacs)
    assert (status, line) == (0, f"{tmp_path}/out: 1 predicted")
    assert written(tmp_path / "out") == {
        "masks/a.png", "color/a.png", "overlay/a.jpg", "confidence/a.png", "predictions.csv",
    }  # fmt: skip
    half = pppc.load(dacs, ["SOLVER.AMP.ENABLED", True]).predict(path)
    full = pppc.load(dacs).predict(path)
    confidence = np.asarray(Image.open(tmp_path / "out/confidence/a.png")) / 65535
    np.testing.assert_allclose(confidence, half.confidence, atol=1e-5)
    assert not np.allclose(half.confidence, full.confidence, atol=1e-5)
    content = (tmp_path / "out/predictions.csv").read_text()
    (tmp_path / "out/predictions.csv").write_text(content.replace("road", "lane"))
    status, _, (error,) = predict("--input", path, model=dacs)
    assert status == 2 and "predictions.csv is of a model of other classes" in error
