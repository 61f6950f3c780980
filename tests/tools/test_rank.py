"""From a model to images that people label, and back."""

import csv
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pppc
import pytest
from conftest import REPOSITORY
from PIL import Image
from pppc.data.catalog import list_records, own_reader
from pppc.data.data_file import register_data_file
from pppc.data.formats.label_studio import _decode_rle
from pppc.labeling.exports import encode_rle, write_cvat
from pppc.labeling.ranking import class_means
from test_adapt import call, forget_data_sets, street  # noqa: F401
from tiny_run import run_folder, tiny_config

GUIDE = (REPOSITORY / "docs/labeling.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def same_labels(name: str, model: pppc.prediction.Predictor) -> bool:
    """Whether a data set's labels are what the model predicts, as far as they are of its classes."""
    reader = own_reader(name)
    for record in list_records(name):
        predicted = model.predict(record["file_name"]).labels
        expected = np.full(predicted.shape, 255)
        for index, known in enumerate(reader.class_names):
            expected[predicted == model.names.index(known)] = index
        if not (reader.read(record["sem_seg_file_name"]) == expected).all():
            return False
    return True


def test_the_guide_s_way_to_labels_and_back(
    street, datasets_root, tmp_path, monkeypatch, capsys  # noqa: F811
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in ("day photos", "dusk photos"):
        Path(folder).symlink_to(street / folder)
    Path("mine.yaml").write_text((street / "mine.yaml").read_text().replace("\nval:", "\n#"))
    Path("run").mkdir()
    own = ["DATASETS.FILE", "mine.yaml", "PPPC.CLASS_WEIGHTS.FREQUENCIES", [1 / 3] * 3]
    run = run_folder(tmp_path / "run/model", *own)
    Path("run/adapted").symlink_to(run)
    Path("run/adapted.yaml").write_text(tiny_config(run, *own).dump())
    model = pppc.load("run/model")
    rank, evaluate = ([*re.findall(r"\S+", block)] for block in blocks("sh"))
    rank[rank.index("20")] = "4"
    assert call(monkeypatch, *rank) == 0, capsys.readouterr()
    assert "4 of 6 target images, drawn at random." in capsys.readouterr().out
    assert len(Path("to_label/others.txt").read_text().splitlines()) == 2
    rows = list(csv.DictReader(Path("to_label/ranking.csv").open()))
    scores = [float(row["uncertainty"]) for row in rows]
    assert len(rows) == 6 and scores == sorted(scores, reverse=True) and scores[-1] < scores[0]
    by_class = [float(rows[0][name]) for name in model.names if rows[0][name]]
    assert scores[0] == pytest.approx(np.mean(by_class), abs=1e-3)
    # The first labels come back from both programs as they are.
    zipfile.ZipFile("to_label/cvat.zip").extractall("labeled")
    tasks = json.loads(Path("to_label/label_studio.json").read_text())
    for task in tasks:
        task["annotations"] = task.pop("predictions")
    Path("labeled.json").write_text(json.dumps(tasks))
    assert Path("to_label/label_studio.xml").read_text().count("<Label value=") == 3
    measured, more = blocks("yaml")
    Path("measured.yaml").write_text(measured)
    Path("more.yaml").write_text(more)
    assert register_data_file("more.yaml").source_weights == (0.5, 0.5)
    assert same_labels("more_source_2", model) and len(list_records("more_source_2")) == 4
    register_data_file("measured.yaml")
    assert same_labels("measured_val", model) and len(list_records("measured_target")) == 2
    assert call(monkeypatch, *evaluate) == 0
    found = json.loads((run / "inference/results.json").read_text())["sem_seg"]
    assert found["mIoU-low"] == found["mIoU-high"] == 100  # the labels are the predictions
    # Without --random the first of the table are taken.
    rank[rank.index("to_label")] = "hardest"
    assert call(monkeypatch, *[word for word in rank if word != "--random"]) == 0
    names = sorted(path.name[5:] for path in Path("hardest/images").iterdir())
    assert names == sorted(Path(row["image"]).name for row in rows[:4])
    assert call(monkeypatch, *rank) == 2  # the folder is there


def test_the_runs_of_a_stroke_are_those_of_the_mask():
    rng = np.random.default_rng(0)
    for mask in (rng.random((37, 53)) < 0.5, np.ones((300, 200), bool), np.zeros((1, 1), bool)):
        decoded = _decode_rle(bytes(encode_rle(mask))).reshape(*mask.shape, 4)
        assert (decoded == 255 * mask[:, :, None]).all()


def test_colors_of_cvat_are_distinct_and_black_is_the_background(tmp_path):
    label = np.array([[0, 1], [2, 2]], np.uint8)
    colors = [[0, 0, 0], [9, 9, 9], [9, 9, 9]]
    write_cvat(tmp_path / "a.zip", [("x.jpg", label)], ["road", "background", "car"], colors)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()[1:]
        with archive.open("SegmentationClass/x.png") as file:
            pixels = np.asarray(Image.open(file)).tolist()
    table = {line.split(":")[0]: [*map(int, line.split(":")[1].split(","))] for line in lines}
    assert table["background"] == [0, 0, 0] and table["car"] == [9, 9, 9]
    assert pixels == [[table["road"], table["background"]], [table["car"]] * 2]
    assert len({tuple(color) for color in table.values()}) == 3


def test_each_predicted_class_counts_alike():
    labels, unsure = np.zeros((100, 100), np.uint8), np.full((100, 100), 0.1)
    labels[:2, :50], unsure[:2, :50] = 1, 0.9  # 1 % of the pixels
    labels[0, 0], unsure[0, 0] = 2, 0.5  # too few
    means = class_means(labels, unsure, 4)
    assert np.nanmean(means) == pytest.approx(0.5) and np.isnan(means[2:]).all()
