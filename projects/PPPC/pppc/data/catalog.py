"""Registration of the data sets in Detectron2's catalogs, and what is registered there.

This project's own say by a :class:`Split` where they are and by a label space what their labels mean.
Those that were registered in Detectron2's way say it by their records and metadata:
:func:`label_space_of`.

The root of all of them is the environment variable DETECTRON2_DATASETS, "datasets" by default, as
in Detectron2; converted labels may be in another tree (:func:`pppc.data.listing.converted_root`).
Nothing is opened before a data set is used.
"""

import difflib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.utils.colormap import colormap
from detectron2.utils.logger import log_first_n
from torch import nn

from ..errors import InputError, printable
from .images import intensity_range
from .inspection import high_depth_images
from .label_images import read_label_image
from .labels import LabelReader
from .listing import SPARE_LABELS, Listing, list_split
from .splits import SPLITS, Split
from .train_ids import LABEL_SPACES, LabelSpace

logger = logging.getLogger(__name__)

SAMPLE_LABELS = 64  # that are read where their values can mean two things


def load_split(name: str, split: Split) -> list[dict]:
    """The records of a split, see :func:`pppc.data.listing.list_split`; what was not taken is logged."""
    return _logged(name, list_split(name, split))


def _logged(name: str, listing: Listing) -> list[dict]:
    labels = f", labels below {listing.label_folder}" if listing.label_folder else ""
    left_out = listing.describe_left_out()
    text = f"{name}: {len(listing.records)} images{labels}; not taken: {left_out or 'none'}"
    level = logging.WARNING if SPARE_LABELS in listing.left_out else logging.INFO
    log_first_n(level, printable(text), key="message")  # it is loaded again and again
    return listing.records


def register_listing(
    name: str, list_files: Callable[[], Listing], reader: LabelReader, **metadata: object
) -> None:
    """Register a data set under ``name`` in Detectron2's catalogs.

    Args:
        name: that is free.
        list_files: finds its files, when they are needed.
        reader: of its labels.
        metadata: what else is known of it.
    """
    DatasetCatalog.register(name, lambda: _logged(name, list_files()))
    MetadataCatalog.get(name).set(
        stuff_classes=list(reader.space.class_names),
        stuff_colors=[list(color) for color in reader.space.colors],
        ignore_label=reader.space.ignore_label,
        label_reader=reader,
        list_files=list_files,
        evaluator_type="sem_seg",
        **metadata,
    )


def register_split(name: str, split: Split) -> None:
    """Register a split under ``name`` in Detectron2's catalogs; the same one again is no error.

    Raises:
        InputError: the split's label space is unknown, or another data set has this name.
    """
    if split.label_space not in LABEL_SPACES:
        raise InputError(
            f"{name}: no label space is named {split.label_space!r}: add it to LABEL_SPACES, or "
            f"use one of {', '.join(LABEL_SPACES)}"
        )
    if name in DatasetCatalog.list():
        if MetadataCatalog.get(name).get("pppc_split") == split:
            return
        raise InputError(f"another data set is registered as {name} already: choose another name")
    reader = LabelReader(split.label_space, split.train_ids, numbers_are_ids=split.numbers_are_ids)
    register_listing(name, lambda: list_split(name, split), reader, pppc_split=split)


def dataset_metadata(name: str) -> Metadata:
    """The metadata of a registered data set; InputError: there is none, or nothing names its classes."""
    metadata = _metadata(name)
    if not metadata.get("stuff_classes"):
        raise InputError(
            f"nothing names the classes of {name}: MetadataCatalog.get({name!r}).set("
            "stuff_classes=[...], ignore_label=255) does"
        )
    return metadata


def _metadata(name: str) -> Metadata:
    names = DatasetCatalog.list()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or sorted(SPLITS)
        raise InputError(f"no data set is named {name!r}. Did you mean {' or '.join(near)}?")
    return MetadataCatalog.get(name)


def list_records(name: str) -> list[dict]:
    """The records of a registered data set, which may come from a function of the user's.

    Raises:
        InputError: no data set has this name; from listing it; or they are not in Detectron2's format.
    """
    metadata = _metadata(name)
    try:
        records = list(DatasetCatalog.get(name))
    except (AssertionError, OSError) as error:
        if metadata.get("pppc_split") is not None:
            raise
        # Detectron2's own functions end like this where files are missing.
        raise InputError(f"{name} cannot be listed: {error or type(error).__name__}") from error
    if not records:
        raise InputError(f"{name}: its list of images is empty")
    for number, record in enumerate(records):
        for key in ("file_name", "sem_seg_file_name"):
            value = record.get(key, "")
            if not isinstance(value, str) or (key == "file_name" and not value):
                raise InputError(
                    f"{name}: {key} of record {number} is {record.get(key)!r}: give a file's name"
                )
    return records


def own_reader(name: str) -> LabelReader:
    """Reads the labels of data set ``name`` as its own classes."""
    metadata = dataset_metadata(name)
    if metadata.get("label_reader") is None:
        space = label_space_of(name, metadata, list_records(name))
        metadata.label_reader = LabelReader(space, train_ids=False, numbers_are_ids=True)
    return metadata.label_reader


def label_space_of(name: str, metadata: Metadata, records: list[dict]) -> LabelSpace:
    """What the values of labels mean that were registered in Detectron2's way.

    They are "contiguous" IDs, as its evaluator takes them: the indices in ``stuff_classes``, and
    ``ignore_label``. Where ``stuff_dataset_id_to_contiguous_id`` says that the data set has other IDs,
    and some labels of ``records`` hold some of them that are no contiguous ones, the values are those IDs,
    and all that it does not list are ignored.

    Raises:
        InputError: the metadata contradict themselves, or a label can't be read.
    """
    classes = metadata.stuff_classes
    ignored = metadata.get("ignore_label", 255)
    ids = {train_id: train_id for train_id in range(len(classes)) if train_id != ignored}
    void = {ignored} & set(range(256))
    mapping = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
    if any(label_id != train_id for label_id, train_id in mapping.items()):
        strange = _values_in_labels(records) - ids.keys() - void
        if strange & mapping.keys():
            ids = {i: train_id for i, train_id in mapping.items() if train_id < len(classes)}
            void = set(range(256)) - ids.keys()
            kind = "the data set's IDs"
        else:
            kind = "contiguous IDs"
        log_first_n(logging.INFO, f"{name}: its labels hold {kind}", key="message")
    try:
        return LabelSpace(
            id_to_train_id=ids,
            void_ids=frozenset(void),
            class_names=tuple(classes),
            colors=tuple(map(tuple, metadata.get("stuff_colors") or ())),
            ignore_label=ignored if len(classes) <= ignored <= 255 else 255,
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _values_in_labels(records: list[dict]) -> set[int]:
    """The values in some of the labels; those that can't be read are for others to name."""
    labels = [record["sem_seg_file_name"] for record in records if "sem_seg_file_name" in record]
    found: set[int] = set()
    for label in labels[:: max(1, len(labels) // SAMPLE_LABELS)]:
        with suppress(InputError):
            found.update(np.unique(read_label_image(label).values).tolist())
    return found


def class_colors(metadata: Metadata) -> list[list[int]]:
    """A color of each class, RGB, 0 to 255: the data set's, or Detectron2's where it has none."""
    if colors := metadata.get("stuff_colors"):
        return colors
    colors = colormap(rgb=True).astype(int).tolist()
    return [colors[train_id % len(colors)] for train_id in range(len(metadata.stuff_classes))]


def dataset_records(cfg: CfgNode, name: str, beside: Sequence[str] = ()) -> list[dict]:
    """The records of a data set, as the mappers read them.

    Where its images have more than 8 bits, each has "intensities", the values that become 0 and 255:
    INPUT.INTENSITIES, or by the rule INPUT.HIGH_BIT_DEPTH.

    Args:
        cfg: the configuration.
        name: of the data set.
        beside: of data sets that have the same range of values.
    """
    records = list_records(name)
    if not (own := _deep(records)):
        return records
    deep = own + [path for other in beside if other != name for path in _deep(list_records(other))]
    intensities = cfg.INPUT.INTENSITIES or intensity_range(deep, cfg.INPUT.HIGH_BIT_DEPTH)
    if not intensities:
        return records
    logger.info("%s: of more than 8 bits, values %g to %g become 0 to 255", name, *intensities)
    return [{**record, "intensities": intensities} for record in records]


def _deep(records: list[dict]) -> list[str]:
    keys = ("file_name", "day_file_name")
    return high_depth_images(record[key] for record in records for key in keys if key in record)


def source_records(cfg: CfgNode, name: str) -> tuple[list[dict], list[dict]]:
    """The records of a source: those to train on, and those that DATASETS.HELD_OUT holds out."""
    records = dataset_records(cfg, name, cfg.DATASETS.TRAIN)
    step = cfg.DATASETS.HELD_OUT or len(records) + 1
    held_out = records[step - 1 :: step]
    return [record for i, record in enumerate(records, 1) if i % step], held_out


def with_intensities(cfg: CfgNode, model: nn.Module) -> CfgNode:
    """``cfg`` with the range of values of more than 8 bits that a model was trained with, if it has one.

    A range that ``cfg`` gives stays.
    """
    low, high = getattr(getattr(model, "module", model), "intensities", torch.zeros(2)).tolist()
    if low >= high or cfg.INPUT.INTENSITIES:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.INTENSITIES = (low, high)
    cfg.freeze()
    return cfg


def model_metadata(cfg: CfgNode) -> Metadata:
    """Metadata of the data set whose classes the model has: the target's, or else the source's.

    The target's names only count where the source has some of them, too: no target label is read.

    Raises:
        InputError: from :func:`dataset_metadata`; there is neither, or
            MODEL.SEM_SEG_HEAD.NUM_CLASSES is another number.
    """
    names = (*cfg.DATASETS.TARGET, *cfg.DATASETS.TRAIN)
    if not names:
        raise InputError("DATASETS.TRAIN and DATASETS.TARGET are empty: name a data set")
    known = {name: dataset_metadata(name) for name in names}
    name, source = names[0], (cfg.DATASETS.TRAIN or names)[0]
    labeled = {
        class_name for other in cfg.DATASETS.TRAIN for class_name in known[other].stuff_classes
    }
    if cfg.DATASETS.TRAIN and not labeled & set(known[name].stuff_classes):
        log_first_n(
            logging.WARNING,
            f"{name} names no class as {source} does: the model has the classes of {source}",
            key="message",
        )
        name = source
    metadata = known[name]
    num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if len(metadata.stuff_classes) != num_classes:
        raise InputError(
            f"{name} has {len(metadata.stuff_classes)} classes, the model {num_classes}: "
            "set MODEL.SEM_SEG_HEAD.NUM_CLASSES"
        )
    return metadata


def label_reader(cfg: CfgNode, name: str) -> LabelReader:
    """Reads the labels of data set ``name`` as the model's classes."""
    return own_reader(name).with_classes(
        model_metadata(cfg).stuff_classes, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    )


def label_files(name: str, records: list[dict]) -> list[str]:
    """The label files of the records of data set ``name``; InputError: an image has none."""
    if unlabeled := [record for record in records if "sem_seg_file_name" not in record]:
        raise InputError(
            f"{name} has no labels (for example none for {unlabeled[0]['file_name']}): it can be "
            "a target (DATASETS.TARGET), not a source or a test set"
        )
    return [record["sem_seg_file_name"] for record in records]


for _name, _split in SPLITS.items():
    register_split(_name, _split)
