"""The demo data: formats and trees of the real data sets, the same bytes for the same seed."""

import csv
import hashlib
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from demo_data import datasets
from demo_data.datasets import DemoData, make_demo_data
from PIL import Image
from pppc.data.train_ids import CITYSCAPES_CLASSES, LABEL_SPACES
from pppc.errors import InputError

SMALL = DemoData(
    size=(96, 48),
    gta_train=12,
    synthia_train=4,
    cityscapes_train=4,
    cityscapes_val=2,
    dark_zurich_train=2,
    dark_zurich_val=1,
    dark_zurich_test=2,
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "data"
    assert make_demo_data(root, SMALL)
    return root


def files(root, pattern):
    return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))


def digests(root):
    return {
        path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*.*")
    }


def test_trees_are_those_of_the_real_data_sets(demo):
    assert files(demo, "gta/images/*.png")[:2] == ["gta/images/00001.png", "gta/images/00002.png"]
    assert [Path(p).name for p in files(demo, "gta/images/*")] == [
        Path(p).name for p in files(demo, "gta/labels/*")
    ]
    assert files(demo, "synthia/GT/LABELS/*")[0] == "synthia/GT/LABELS/0000000.png"
    assert len(files(demo, "synthia/RGB/*")) == 4
    assert files(demo, "cityscapes/*/val/*/*") == [
        "cityscapes/gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png",
        "cityscapes/gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png",
        "cityscapes/leftImg8bit/val/frankfurt/frankfurt_000000_000019_leftImg8bit.png",
        "cityscapes/leftImg8bit/val/lindau/lindau_000001_000019_leftImg8bit.png",
    ]
    assert len(files(demo, "cityscapes/leftImg8bit/train/*/*.png")) == 4
    assert files(demo, "dark_zurich/gt/**/*.png") == [
        "dark_zurich/gt/val/night/GOPR0356/GOPR0356_frame_000001_gt_labelTrainIds.png"
    ]
    assert len(files(demo, "dark_zurich/rgb_anon/test/night/*/*_rgb_anon.png")) == 2


def test_every_night_image_has_a_day_image(demo):
    images = demo / "dark_zurich/rgb_anon"
    with open(demo / "dark_zurich/corresp/train/night/GOPR0351.csv", newline="") as file:
        pairs = list(csv.reader(file))
    assert [f"{night}_rgb_anon.png" for night, _ in pairs] == files(images, "train/night/*/*")
    for night, day in pairs:
        dark = np.asarray(Image.open(images / f"{night}_rgb_anon.png"))
        light = np.asarray(Image.open(images / f"{day}_rgb_anon.png"))
        assert dark.mean() < 0.6 * light.mean()


def test_label_formats_and_classes(demo):
    gta = [Image.open(path) for path in sorted((demo / "gta/labels").glob("*.png"))]
    assert {(image.mode, image.size) for image in gta} == {("P", SMALL.size)}
    space = LABEL_SPACES["gta"]
    car = CITYSCAPES_CLASSES.index("car")
    assert tuple(gta[0].getpalette()[3 * 26 : 3 * 27]) == space.colors[car]
    ids = {int(i) for image in gta for i in np.unique(np.asarray(image))}
    assert ids <= set(space.id_to_train_id) | space.void_ids
    assert len(ids & set(space.id_to_train_id)) >= 14

    labels = [cv2.imread(str(p), -1) for p in sorted((demo / "synthia/GT/LABELS").glob("*"))]
    assert {(label.dtype, label.shape) for label in labels} == {(np.dtype("uint16"), (48, 96, 3))}
    red = {int(i) for label in labels for i in np.unique(label[..., 2])}
    space = LABEL_SPACES["synthia"]
    assert red <= set(space.id_to_train_id) | space.void_ids
    assert not red & {16, 18, 20}  # terrain, truck and train, which SYNTHIA hasn't
    assert all(label[..., 1].any() for label in labels)  # instances

    city = np.asarray(Image.open(next(demo.glob("cityscapes/gtFine/val/*/*.png"))))
    assert (city[-1, 48] == 1) and 7 in city  # the own car, road


def test_same_seed_same_bytes_whatever_the_number_of_processes(demo, tmp_path):
    fewer = replace(SMALL, gta_train=3)
    assert make_demo_data(tmp_path / "again", fewer, num_processes=2)
    again, first = digests(tmp_path / "again"), digests(demo)
    del again[Path("demo_data.json")]
    assert len(again) == len(first) - 2 * (SMALL.gta_train - 3) - 1
    assert all(first[path] == digest for path, digest in again.items())
    only_one = DemoData(9, SMALL.size, 1, 0, 0, 0, 0, 0, 0)
    make_demo_data(tmp_path / "other", only_one)
    assert digests(tmp_path / "other")[Path("gta/images/00001.png")] not in first.values()


def test_same_data_is_kept_and_other_folders_are_left_alone(demo, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*.png")}
    assert not make_demo_data(demo, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in demo.rglob("*.png")}
    (tmp_path / "thesis.txt").write_text("mine")
    for folder in (demo, tmp_path):
        with pytest.raises(InputError, match=str(folder)):
            make_demo_data(folder, replace(SMALL, seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(datasets, "_write_correspondences", fail)
    with pytest.raises(OSError, match="disk full"):
        make_demo_data(tmp_path / "data", replace(SMALL, gta_train=1))
    assert list(tmp_path.iterdir()) == []


def test_tool_makes_what_its_options_say(tmp_path, monkeypatch):
    tool = REPOSITORY / "tools/make_demo_data.py"
    counts = [f"--{name}=0" for name in (
        "synthia-train", "cityscapes-train", "cityscapes-val",
        "dark-zurich-train", "dark-zurich-val", "dark-zurich-test",
    )]  # fmt: skip
    output = tmp_path / "data"
    arguments = [str(tool), str(output), "--size", "64x32", "--gta-train", "2", *counts]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(tool), run_name="__main__")
    assert end.value.code == 0
    assert {Image.open(path).size for path in output.rglob("*.png")} == {(64, 32)}
    assert len(files(output, "gta/labels/*")) == 2
