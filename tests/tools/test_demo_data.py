"""The demo data: formats and trees of the real data sets, the same bytes for the same seed."""

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
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
