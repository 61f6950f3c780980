"""Registration of the data sets in Detectron2's catalogs.

The root of all of them is the environment variable DETECTRON2_DATASETS, "datasets" by default, as
in Detectron2; converted labels may be in another tree (:func:`pppc.data.listing.converted_root`).
Nothing is opened before a data set is used.
"""

from __future__ import annotations

import difflib
import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.utils.logger import log_first_n

from ..errors import InputError, printable
from .images import intensity_range
from .labels import LabelReader
from .listing import SPARE_LABELS, list_split
from .splits import SPLITS, Split
from .train_ids import LABEL_SPACES

__all__ = [
    "dataset_metadata",
    "dataset_records",
    "label_files",
    "label_reader",
    "load_split",
    "model_metadata",
    "register_split",
]


logger = logging.getLogger(__name__)


def load_split(name: str, split: Split) -> list[dict]:
    """The records of a split (:class:`Listing`); what was not taken is logged.

    Raises:
        InputError: from :func:`pppc.data.listing.list_split`.
    """
    listing = list_split(name, split)
    labels = f", labels below {listing.label_folder}" if listing.label_folder else ""
    left_out = listing.describe_left_out()
    text = f"{name}: {len(listing.records)} images{labels}; not taken: {left_out or 'none'}"
    level = logging.WARNING if SPARE_LABELS in listing.left_out else logging.INFO
    log_first_n(level, printable(text), key="message")  # it is loaded again and again
    return listing.records


def register_split(name: str, split: Split) -> None:
    """Register a split under ``name`` in Detectron2's catalogs.

    Raises:
        InputError: the split's label space is unknown.
    """
    if split.label_space not in LABEL_SPACES:
        raise InputError(
            f"{name}: no label space is named {split.label_space!r}: add it to LABEL_SPACES, or "
            f"use one of {', '.join(LABEL_SPACES)}"
        )
    space = LABEL_SPACES[split.label_space]
    DatasetCatalog.register(name, lambda: load_split(name, split))
    MetadataCatalog.get(name).set(
        stuff_classes=list(space.class_names),
        stuff_colors=[list(color) for color in space.colors],
        ignore_label=space.ignore_label,
        pppc_split=split,
        label_reader=LabelReader(
            split.label_space, split.train_ids, numbers_are_ids=split.numbers_are_ids
        ),
        evaluator_type="sem_seg",
    )


def dataset_metadata(name: str) -> Metadata:
    """The metadata of a registered data set.

    Raises:
        InputError: no data set has this name, the message lists the nearest ones; or it is none of
            this project's.
    """
    names = DatasetCatalog.list()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(SPLITS)
        raise InputError(f"no data set is named {name!r}. Did you mean {' or '.join(near)}?")
    metadata = MetadataCatalog.get(name)
    if metadata.get("label_reader") is None:
        raise InputError(
            f"nothing tells how {name} is labeled: register it by pppc.data.register_split"
        )
    return metadata


def dataset_records(cfg: CfgNode, name: str) -> list[dict]:
    """The records of a data set, as the mappers read them.

    Where its images have more than 8 bits, each has "intensities", the values that become 0 and 255
    by the rule INPUT.HIGH_BIT_DEPTH.

    Raises:
        InputError: from listing the data set, or from reading some of its images.
    """
    records = DatasetCatalog.get(name)
    keys = ("file_name", "day_file_name")
    paths = [record[key] for record in records for key in keys if key in record]
    intensities = intensity_range(paths, cfg.INPUT.HIGH_BIT_DEPTH)
    if intensities is None:
        return records
    logger.info("%s: of more than 8 bits, values %g to %g become 0 to 255", name, *intensities)
    return [{**record, "intensities": intensities} for record in records]


def model_metadata(cfg: CfgNode) -> Metadata:
    """Metadata of the data set whose classes the model has: the target's, without one the source's.

    Raises:
        InputError: from :func:`dataset_metadata`; there is neither, or
            MODEL.SEM_SEG_HEAD.NUM_CLASSES is another number.
    """
    names = (*cfg.DATASETS.TARGET, *cfg.DATASETS.TRAIN)
    if not names:
        raise InputError("DATASETS.TRAIN and DATASETS.TARGET are empty: name a data set")
    metadata = dataset_metadata(names[0])
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if len(metadata.stuff_classes) != num_classes:
        raise InputError(
            f"{names[0]} has {len(metadata.stuff_classes)} classes, the model {num_classes}: "
            "set MODEL.SEM_SEG_HEAD.NUM_CLASSES"
        )
    return metadata


def label_reader(cfg: CfgNode, name: str) -> LabelReader:
    """Reads the labels of data set ``name`` as the model's classes."""
    return dataset_metadata(name).label_reader.with_classes(
        model_metadata(cfg).stuff_classes, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    )


def label_files(name: str, records: list[dict]) -> list[str]:
    """The label files of the records of data set ``name``.

    Raises:
        InputError: an image has none.
    """
    if unlabeled := [record for record in records if "sem_seg_file_name" not in record]:
        raise InputError(
            f"{name} has no labels (for example none for {unlabeled[0]['file_name']}): it can be "
            "a target (DATASETS.TARGET), not a source or a test set"
        )
    return [record["sem_seg_file_name"] for record in records]


for _name, _split in SPLITS.items():
    register_split(_name, _split)
