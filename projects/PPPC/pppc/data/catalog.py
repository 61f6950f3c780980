"""Registration of the data sets in Detectron2's catalogs.

The root of all of them is the environment variable DETECTRON2_DATASETS, "datasets" by default, as
in Detectron2. Nothing is opened before a data set is used.
"""

from __future__ import annotations

import csv
import difflib
import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from .class_statistics import STATISTICS_FILE
from .labels import LabelReader
from .splits import SPLITS, Split
from .train_ids import LABEL_SPACES

__all__ = [
    "dataset_metadata",
    "datasets_root",
    "label_files",
    "label_reader",
    "load_split",
    "model_metadata",
    "register_split",
    "statistics_file",
]


def datasets_root() -> Path:
    """The folder that holds the data sets, as Detectron2 finds it."""
    return Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))


def load_split(name: str, split: Split) -> list[dict]:
    """The records of a split, in Detectron2's format, sorted by file name.

    Returns:
        dictionaries with "file_name", "image_id" and, where the split has them,
        "sem_seg_file_name" and "day_file_name".

    Raises:
        FileNotFoundError: a folder, the images, an image's label or its day image is missing; the
            message names it and the mend.
        ValueError: a CSV file of correspondences is wrong.
    """
    root = datasets_root()
    for folder in filter(
        None, (split.image_folder, split.label_folder, split.correspondences, split.day_folder)
    ):
        if not (root / folder).is_dir():
            raise FileNotFoundError(
                f"{name}: no folder {root / folder}. {split.mend} The root is "
                "the environment variable DETECTRON2_DATASETS "
                f"({os.getenv('DETECTRON2_DATASETS', 'not set')})."
            )
    image_folder = root / split.image_folder
    images = sorted(path for pattern in split.image_patterns for path in image_folder.glob(pattern))
    if not images:
        raise FileNotFoundError(
            f"{name}: no image {' or '.join(split.image_patterns)} in {image_folder}. {split.mend}"
        )
    records = []
    for image in images:
        relative = str(image.relative_to(image_folder)).removesuffix(split.image_suffix)
        if relative in split.unusable:
            continue
        record = {"file_name": str(image), "image_id": relative}
        if split.label_folder is not None:
            label = root / split.label_folder / (relative + split.label_suffix)
            if not label.is_file():
                raise FileNotFoundError(
                    f"{name}: image {image} has no label {label}. {split.mend}"
                )
            record["sem_seg_file_name"] = str(label)
        records.append(record)
    if split.correspondences is not None:
        _add_day_images(records, name, split)
    return records


def _add_day_images(records: list[dict], name: str, split: Split) -> None:
    """Add to each night image the "day_file_name" that the CSV files name for it."""
    root = datasets_root()
    known = {record["image_id"] for record in records}
    day_of: dict[str, str] = {}
    for path in sorted((root / split.correspondences).glob("**/*.csv")):
        with open(path, newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        for number, row in enumerate(rows, 1):
            place = f"{name}: {path}, row {number}"
            _, _, night_id = row[0].strip().partition("night/")
            _, _, day_id = row[1].strip().partition("day/") if len(row) > 1 else ("", "", "")
            if not night_id or not day_id:
                raise ValueError(
                    f"{place} is not .../night/SEQUENCE/FRAME,.../day/SEQUENCE/FRAME. {split.mend}"
                )
            day_image = root / split.day_folder / (day_id + split.image_suffix)
            if night_id not in known or not day_image.is_file():
                missing = day_image if night_id in known else f"{night_id}{split.image_suffix}"
                raise FileNotFoundError(f"{place} names {missing}, which is not there. {split.mend}")
            day_of[night_id] = str(day_image)
    for record in records:
        if record["image_id"] not in day_of:
            raise FileNotFoundError(
                f"{name}: no CSV file in {root / split.correspondences} names a day image for "
                f"{record['file_name']}. {split.mend}"
            )
        record["day_file_name"] = day_of[record["image_id"]]


def register_split(name: str, split: Split) -> None:
    """Register a split under ``name`` in Detectron2's catalogs."""
    space = LABEL_SPACES[split.label_space]
    DatasetCatalog.register(name, lambda: load_split(name, split))
    MetadataCatalog.get(name).set(
        stuff_classes=list(space.class_names),
        stuff_colors=[list(color) for color in space.colors],
        ignore_label=space.ignore_label,
        label_reader=LabelReader(split.label_space, split.train_ids),
        statistics_folder=split.statistics_folder,
        evaluator_type="sem_seg",
    )


def dataset_metadata(name: str) -> Metadata:
    """The metadata of a registered data set.

    Raises:
        KeyError: no data set has this name, the message lists the nearest ones; or it is none of
            this project's.
    """
    names = DatasetCatalog.list()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(SPLITS)
        raise KeyError(f"no data set is named {name!r}. Did you mean {' or '.join(near)}?")
    metadata = MetadataCatalog.get(name)
    if metadata.get("label_reader") is None:
        raise KeyError(f"nothing tells how {name} is labelled: register it by pppc.data.register_split")
    return metadata


def statistics_file(name: str) -> Path | None:
    """Where the converter leaves the class statistics of a data set; None: it needs no converter."""
    folder = dataset_metadata(name).get("statistics_folder")
    return None if folder is None else datasets_root() / folder / STATISTICS_FILE


def model_metadata(cfg: CfgNode) -> Metadata:
    """Metadata of the data set whose classes the model has: the target's, without one the source's.

    Raises:
        KeyError: from :func:`dataset_metadata`.
        ValueError: there is neither, or MODEL.SEM_SEG_HEAD.NUM_CLASSES is another number.
    """
    names = (*cfg.DATASETS.TARGET, *cfg.DATASETS.TRAIN)
    if not names:
        raise ValueError("DATASETS.TRAIN and DATASETS.TARGET are empty: name a data set")
    metadata = dataset_metadata(names[0])
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if len(metadata.stuff_classes) != num_classes:
        raise ValueError(
            f"{names[0]} has {len(metadata.stuff_classes)} classes, the model {num_classes}: "
            "set MODEL.SEM_SEG_HEAD.NUM_CLASSES"
        )
    return metadata


def label_reader(cfg: CfgNode, name: str) -> LabelReader:
    """Reads the labels of data set ``name`` as the model's classes."""
    return dataset_metadata(name).label_reader.with_classes(model_metadata(cfg).stuff_classes)


def label_files(name: str, records: list[dict]) -> list[str]:
    """The label files of the records of data set ``name``.

    Raises:
        ValueError: an image has none.
    """
    if unlabeled := [record for record in records if "sem_seg_file_name" not in record]:
        raise ValueError(
            f"{name} has no labels (for example none for {unlabeled[0]['file_name']}): it can be "
            "a target (DATASETS.TARGET), not a source or a test set"
        )
    return [record["sem_seg_file_name"] for record in records]


for _name, _split in SPLITS.items():
    register_split(_name, _split)
