"""How many pixels of each class a source's labels show, as training counts them."""

import json
import shutil

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image
from pppc.data import check_data, label_reader
from pppc.data.catalog import dataset_metadata
from pppc.data.class_counts import count_classes
from pppc.data.train_ids import CAMVID_CLASSES
from tiny_run import tiny_config


@pytest.fixture
def gta(datasets_root, tmp_path, monkeypatch):
    """A copy of the demo's GTA V, and its records."""
    shutil.copytree(datasets_root / "gta", tmp_path / "gta")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return DatasetCatalog.get("gta_train")


def counted_plainly(records, classes):
    rows = []
    for record in records:
        label = np.asarray(Image.open(record["sem_seg_file_name"]))
        row = [int((label == train_id).sum()) for train_id in classes]
        rows.append([*row, label.size - sum(row)])
    return rows


def test_labels_are_counted_whatever_statistics_lie_beside_them(gta, tmp_path):
    wrong = [
        {"3": 7, "file": "D:\\gta\\labels\\" + record["image_id"] + "_labelTrainIds.png"}
        for record in gta
    ]
    (tmp_path / "gta/sample_class_stats.json").write_text(json.dumps(wrong))
    counts, _ = count_classes(tiny_config(tmp_path), "gta_train", gta)
    assert counts.tolist() == counted_plainly(gta, range(19))


def test_a_label_that_was_replaced_is_counted_anew(gta, tmp_path):
    cfg = tiny_config(tmp_path)
    count_classes(cfg, "gta_train", gta)
    first, second = (tmp_path / f"gta/labels/0000{i}_labelTrainIds.png" for i in (1, 2))
    shutil.copy2(second, first)  # with the date of the other
    assert count_classes(cfg, "gta_train", gta)[0].tolist() == counted_plainly(gta, range(19))


def test_classes_are_matched_by_name(gta):
    reader = dataset_metadata("gta_train").label_reader.with_classes(["sky", "zebra", "road"], 77)
    path = gta[0]["sem_seg_file_name"]
    stored, read = np.asarray(Image.open(path)), reader.read(path)
    assert (read == np.select([stored == 10, stored == 0], [0, 2], 77)).all()
    assert {0, 2, 77} == set(np.unique(read))


def test_source_and_target_with_different_classes(datasets_root, tmp_path):
    """A model of CamVid's classes learns from GTA V what both have."""
    cfg = tiny_config(tmp_path)
    cfg.DATASETS.TARGET = ("camvid_dusk_train_unlabeled",)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(CAMVID_CLASSES)
    records = DatasetCatalog.get("gta_train")
    counts, _ = count_classes(cfg, "gta_train", records)
    common = {"sky", "building", "pole", "road", "fence", "car"}
    shown = {name for name, n in zip(CAMVID_CLASSES, counts.sum(0)) if n}
    assert shown == common
    assert set(label_reader(cfg, "gta_train").class_names) == set(CAMVID_CLASSES)
    cfg.DATASETS.TEST, cfg.DATASETS.TARGET = ("cityscapes_val",), ("cityscapes_train_unlabeled",)
    with pytest.raises(ValueError, match="cityscapes_train_unlabeled has 19 classes, the model 11"):
        check_data(cfg)
