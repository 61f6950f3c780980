"""What can be wrong with data sets, found before any training time is spent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from PIL import Image

from .catalog import dataset_metadata, label_files, label_reader, model_metadata
from .labels import LabelReader, count_class_pixels
from .mapper import TargetMapper

__all__ = ["check_data", "label_problems", "size_problems"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


def size_problems(records: list[dict]) -> list[str]:
    """Images that are not of their label's size, or not of their day image's; from the headers."""

    def problem(record: dict) -> str | None:
        sizes = {}
        for key in ("file_name", "sem_seg_file_name", "day_file_name"):
            if key in record:
                try:
                    with Image.open(record[key]) as image:
                        sizes[record[key]] = "{}x{}".format(*image.size)
                except OSError as error:
                    return f"{record[key]} can't be read ({error})"
        if len(set(sizes.values())) == 1:
            return None
        return "sizes differ: " + ", ".join(f"{path} is {size}" for path, size in sizes.items())

    return _found(problem, records)


def label_problems(paths: list[str], reader: LabelReader) -> list[str]:
    """What is wrong with each label file that cannot be read as the reader's."""

    def problem(path: str) -> str | None:
        try:
            reader.read(path)
        except ValueError as error:
            return str(error)
        return None

    return _found(problem, paths)


def _found(problem: Callable[[Item], str | None], items: list[Item]) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return [found for found in pool.map(problem, items) if found]


def _check_target_sizes(cfg: CfgNode, name: str, records: list[dict]) -> None:
    """See that the crop fits into every resized image, and that batches can be stacked.

    Raises:
        ValueError: it does not, or they cannot.
    """
    mapper = TargetMapper(cfg)
    resized = {}
    for record in records:
        path = record["file_name"]
        with Image.open(path) as image:
            resized.setdefault(mapper.resized_size(path, image.height, image.width), path)
    if len(resized) > 1 and cfg.SOLVER.TARGET_IMS_PER_BATCH > comm.get_world_size():
        (one, path), (other, other_path) = list(resized.items())[:2]
        raise ValueError(
            f"{name}: images of different sizes cannot be in one batch. After resizing {path} is "
            f"{one[1]}x{one[0]}, {other_path} {other[1]}x{other[0]}. Use "
            "SOLVER.TARGET_IMS_PER_BATCH 1 per process, or images of one aspect ratio"
        )


def check_data(cfg: CfgNode, training: bool = True) -> None:
    """Find what is wrong with the configured data sets before any time is spent.

    Args:
        cfg: the configuration.
        training: check source and target, not the test sets alone.

    Raises:
        KeyError: a data set's name is unknown.
        FileNotFoundError: a folder, image or label is missing.
        ValueError: the classes do not fit the model, or sizes do not agree, or the crop does not
            fit into a target image, or a label holds a foreign value.
    """
    classes = model_metadata(cfg).stuff_classes
    trained_on = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TARGET) if training else ()
    for name in (*trained_on, *cfg.DATASETS.TEST):
        metadata = dataset_metadata(name)
        records = DatasetCatalog.get(name)
        logger.info("%s: %d images", name, len(records))
        if problems := size_problems(records):
            raise ValueError(f"{name}: {problems[0]} (and {len(problems) - 1} more)")
        absent = [class_name for class_name in classes if class_name not in metadata.stuff_classes]
        if len(absent) == len(classes):
            raise ValueError(
                f"{name} and the model have no class in common: {', '.join(metadata.stuff_classes)}"
                f" there, {', '.join(classes)} here. Classes are matched by name"
            )
        if absent:
            logger.warning("%s never labels %s", name, ", ".join(absent))
        if training and cfg.PPPC.SELF_TRAINING.ENABLED and name in cfg.DATASETS.TARGET:
            _check_target_sizes(cfg, name, records)
        if name in cfg.DATASETS.TEST:
            count_class_pixels(label_files(name, records), label_reader(cfg, name))
