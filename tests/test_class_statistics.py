"""Class statistics instead of reading every label: the converters' files, and other projects'."""

import json
import os
import shutil

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from PIL import Image

from pppc import add_pppc_config
from pppc.data import check_data, label_reader
from pppc.data.catalog import dataset_metadata, statistics_file
from pppc.data.labels import LabelReader, count_class_pixels
from pppc.data.train_ids import CAMVID_CLASSES


@pytest.fixture
def gta(datasets_root, tmp_path, monkeypatch):
    """A copy of the demo's GTA V; its labels, their true counts and the statistics file."""
    shutil.copytree(datasets_root / "gta", tmp_path / "gta")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    labels = [record["sem_seg_file_name"] for record in DatasetCatalog.get("gta_train")]
    counts = count_class_pixels(labels, dataset_metadata("gta_train").label_reader)
    return labels, counts, statistics_file("gta_train")


def count(labels, path):
    return count_class_pixels(labels, dataset_metadata("gta_train").label_reader, path)


def test_counts_from_statistics_are_those_of_the_labels(gta, monkeypatch):
    labels, counts, path = gta
    assert path.is_file()
    # The converter ran in another folder: names decide, not folders. Nothing is read again.
    monkeypatch.setattr(LabelReader, "read", lambda *_: pytest.fail("a label was read"))
    np.testing.assert_array_equal(count(labels, path), counts)


def test_files_of_other_projects_are_read(gta):
    labels, counts, path = gta
    theirs = [
        {str(train_id): int(number) for train_id, number in enumerate(row[:-1]) if number}
        | {"file": f"data/gta/labels/{os.path.basename(label)}"}
        for label, row in zip(labels, counts)
    ]
    path.write_text(json.dumps([*reversed(theirs), {"0": 5, "file": "data/gta/labels/99999.png"}]))
    np.testing.assert_array_equal(count(labels, path), counts)


def test_a_label_newer_than_the_statistics_is_read_again(gta):
    labels, counts, path = gta
    wrong = json.loads(path.read_text())
    for entry in wrong[:2]:
        entry["0"] = 1
    path.write_text(json.dumps(wrong))
    os.utime(labels[0], (path.stat().st_mtime + 10,) * 2)
    result = count(labels, path)
    np.testing.assert_array_equal(result[0], counts[0])
    assert result[1, 0] == 1 != counts[1, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "counts 0 labels, but not 8 of the 8"),
        ({"file": 3}, "is no list of"),
        ([{"0": 2}], "is no list of"),
        ("nothing", "is no list of"),
    ],
)
def test_stale_and_foreign_statistics_are_named_with_the_mend(gta, content, message):
    labels, _, path = gta
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"sample_class_stats\.json {message}.*convert_datasets"):
        count(labels, path)


def test_train_ids_of_another_data_set_are_named(gta):
    labels, _, path = gta
    path.write_text(path.read_text().replace('"0":', '"33":'))
    with pytest.raises(ValueError, match="counts train ID 33"):
        count(labels, path)


def test_classes_are_matched_by_name(gta):
    labels, counts, path = gta
    classes = ["sky", "zebra", "road"]
    reader = dataset_metadata("gta_train").label_reader.with_classes(classes)
    ours = np.stack([counts[:, 10], np.zeros(len(labels), int), counts[:, 0]], axis=1)
    ours = np.column_stack([ours, counts.sum(1) - ours.sum(1)])
    for statistics in (path, None):
        np.testing.assert_array_equal(count_class_pixels(labels, reader, statistics), ours)
    assert set(np.unique(reader.read(labels[0]))) <= {0, 2, 255}


def test_source_and_target_with_different_classes(datasets_root):
    """A model of CamVid's classes learns from GTA V what both have."""
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TARGET = ("gta_train",), ("camvid_dusk_train_unlabeled",)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = len(CAMVID_CLASSES)
    reader = label_reader(cfg, "gta_train")
    common = {"sky", "building", "pole", "road", "fence", "car"}
    assert {reader.class_names[i] for i in np.unique(reader.returned_ids) if i < 255} == common
    cfg.DATASETS.TEST, cfg.DATASETS.TARGET = ("cityscapes_val",), ("cityscapes_train_unlabeled",)
    with pytest.raises(ValueError, match="cityscapes_train_unlabeled has 19 classes, the model 11"):
        check_data(cfg)
