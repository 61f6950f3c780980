"""How many pixels of each class a data set's labels show."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from detectron2.config import CfgNode

from ..errors import InputError
from ..processes import from_main_process
from .catalog import label_files, label_reader, own_reader, source_records
from .inspection import inspect_files, refuse_problems

logger = logging.getLogger(__name__)


def count_classes(
    cfg: CfgNode, name: str, records: list[dict]
) -> tuple[np.ndarray, dict[str, str]]:
    """Pixels of each of the model's classes in each label, ``(images, classes + 1)`` int64; last: ignored.

    0 for a label that can't be read and will be left out; and what is wrong with such labels, by their
    images. InputError: more of them than may be left out.
    """
    reader, labels = label_reader(cfg, name), label_files(name, records)
    skip = cfg.DATALOADER.UNREADABLE == "skip"
    found = inspect_files(records, own_reader(name), (), None)
    refuse_problems(name, found, len(records), cfg.DATALOADER.MAX_UNREADABLE if skip else None)
    counts = np.zeros((len(records), reader.num_classes + 1), np.int64)
    column = {class_name: index for index, class_name in enumerate(reader.class_names)}
    for row, label in enumerate(labels):
        for class_name, pixels in found.labels.get(label, {}).items():
            counts[row, column.get(class_name, -1)] += pixels
    unreadable = {
        record["file_name"]: found.unreadable[label]
        for record, label in zip(records, labels)
        if label in found.unreadable
    }
    return counts, unreadable


def class_frequencies(cfg: CfgNode) -> list[float]:
    """Share of the source's labeled pixels that each of the model's classes has, four digits.

    Of several sources as often as they are drawn.
    """
    shares = np.zeros(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    for index, source in enumerate(cfg.DATASETS.TRAIN):
        records, _ = source_records(cfg, source)
        counts = from_main_process(partial(_class_pixels, cfg, source, records))
        weights = cfg.DATASETS.TRAIN_WEIGHTS
        shares += counts * (weights[index] / max(counts.sum(), 1) if weights else 1)
    if not shares.any():
        raise InputError(f"{', '.join(cfg.DATASETS.TRAIN)}: no label shows a class of the model")
    return [float(f"{share:.4g}") for share in shares / shares.sum()]


def _class_pixels(cfg: CfgNode, name: str, records: list[dict]) -> np.ndarray:
    return count_classes(cfg, name, records)[0].sum(0)[:-1]


def require_classes(
    name: str, pixels: Mapping[str, int], counted: str, classes: Sequence[str]
) -> None:
    """See that a source shows the model's classes.

    Args:
        pixels: of each class, by name; of no class by "".
        counted: what was counted, for the message.

    Raises:
        InputError: it shows one class, or none. Classes that it does not show are warned of.
    """
    shown = [class_name for class_name in classes if pixels.get(class_name)]
    ignored = pixels.get("", 0)
    if len(shown) < 2:
        masks = (
            f". Masks of 0 and 255 look like this: 0 is {classes[0]}, 255 is ignored. Write the "
            "numbers of the classes (0, 1, ...) instead of 255"
            if ignored and shown == [classes[0]]
            else ". Choose another source in DATASETS.TRAIN, or correct the labels"
        )
        raise InputError(
            f"{name}: {counted} show {f'only {shown[0]}' if shown else 'none'} of the model's "
            f"{len(classes)} classes, and {'some' if ignored else 'no'} ignored pixels: nothing "
            f"can be learned from that{masks}"
        )
    if missing := ", ".join(class_name for class_name in classes if class_name not in shown):
        logger.warning(
            "%s: %s never show %s: the model can't learn these classes from it",
            name, counted, missing,
        )  # fmt: skip
