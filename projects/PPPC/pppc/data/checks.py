"""What can be wrong with data sets, found before any training time is spent."""

import logging

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge

from ..errors import InputError
from ..processes import from_main_process
from .catalog import dataset_metadata, label_files, list_records, model_metadata, own_reader
from .class_counts import require_classes
from .inspection import Inspection, inspect_files, refuse_problems
from .mapper import TargetMapper
from .outdated import outdated_labels

logger = logging.getLogger(__name__)


def check_data(cfg: CfgNode, training: bool = True) -> None:
    """Find what is wrong with the configured data sets before any time is spent.

    The headers of all images and labels are read, and DATALOADER.CHECK_SAMPLE images and labels of
    each data set decoded; of test sets all labels are. The main process does so, for all. Without
    ``training`` it is the test sets alone.

    Raises:
        InputError: a data set's name is unknown; folders, images or labels are missing; a file can't be
            read; classes do not fit the model; sizes do not agree, or the crop does not fit.
    """
    from_main_process(lambda: _check_data(cfg, training))


def _check_data(cfg: CfgNode, training: bool) -> None:
    classes = model_metadata(cfg).stuff_classes
    if (unreadable := cfg.DATALOADER.UNREADABLE) not in ("error", "skip"):
        raise InputError(f"DATALOADER.UNREADABLE is {unreadable!r}: use error or skip")
    self_training = training and cfg.PPPC.SELF_TRAINING.ENABLED
    if self_training:
        _check_ignored_rows(cfg)
    source = cfg.DATASETS.TRAIN if training else ()
    target = cfg.DATASETS.TARGET if training else ()
    for name in dict.fromkeys((*source, *target, *cfg.DATASETS.TEST)):
        metadata = dataset_metadata(name)
        records = list_records(name)
        labeled = name in source or name in cfg.DATASETS.TEST
        absent = [class_name for class_name in classes if class_name not in metadata.stuff_classes]
        if labeled and len(absent) == len(classes):
            raise InputError(
                f"{name} and the model have no class in common: {', '.join(metadata.stuff_classes)}"
                f" there, {', '.join(classes)} here. Classes are matched by name"
            )
        if labeled and absent:
            logger.warning("%s never labels %s", name, ", ".join(absent))
        if labeled:
            label_files(name, records)
        else:  # a target's labels are no business of a training's
            records = [{k: v for k, v in r.items() if k != "sem_seg_file_name"} for r in records]
        reader = own_reader(name) if labeled else None
        sample = {
            int(index) for index in
            np.linspace(0, len(records) - 1, min(cfg.DATALOADER.CHECK_SAMPLE, len(records)))
        }  # fmt: skip
        is_test = name in cfg.DATASETS.TEST
        logger.info("%s: looking at %d images", name, len(records))
        found = inspect_files(records, reader, sample, None if is_test else sample)
        split = metadata.get("pppc_split")
        if split and (outdated := outdated_labels(split, found.stamps)):
            raise InputError(
                f"{name}: {len(outdated)} of {len(records)} labels are out of date. {outdated[0]}. "
                f"{split.hint}"
            )
        skip = unreadable == "skip" and not is_test
        refuse_problems(name, found, len(records), cfg.DATALOADER.MAX_UNREADABLE if skip else None)
        sizes = []  # shortest and longest side, as images are resized
        if name in source:
            sizes.append((min(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN, "TRAIN"))
        if is_test:
            sizes.append((cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "TEST"))
        for size in sizes:
            _refuse_lines(found, *size)
        if self_training and name in target:
            mapper = TargetMapper(cfg)
            narrow = [path for path, size in found.images.items() if not mapper.fits(*size)]
            if narrow:
                logger.warning(
                    "%s: the crop of %dx%d does not fit into %d of %d resized images, such as %s: they are "
                    "made larger (INPUT.CROP.SIZE, INPUT.TARGET.MIN_SIZE and MAX_SIZE)",
                    name, *cfg.INPUT.CROP.SIZE[::-1], len(narrow), len(found.images), narrow[0],
                )  # fmt: skip
        if name in source and not cfg.DATALOADER.RARE_CLASS_SAMPLING.ENABLED:
            # With it all labels are counted before training, and checked by the loader's builder.
            if sum(name in classes for name in found.class_pixels) < 2:  # to be sure
                found = inspect_files(records, reader, (), None)
            require_classes(
                name, found.class_pixels, f"{len(found.labels)} of {len(records)} labels", classes
            )
        if is_test:
            _check_test_classes(name, found, classes)


def _refuse_lines(found: Inspection, shortest: int, longest: int, keys: str) -> None:
    """Raises InputError for an image so narrow that nothing of it would be left."""
    for path, (height, width) in found.images.items():
        if shortest and min(
            ResizeShortestEdge.get_output_shape(height, width, shortest, longest)
        ) < 1:  # fmt: skip
            raise InputError(
                f"{path} is {width}x{height}: resized to a longest side of {longest} "
                f"(INPUT.MAX_SIZE_{keys}) nothing of it is left. Leave it out"
            )


def _check_ignored_rows(cfg: CfgNode) -> None:
    settings, height = cfg.PPPC.SELF_TRAINING, cfg.INPUT.CROP.SIZE[0]
    left = height - settings.IGNORE_TOP - settings.IGNORE_BOTTOM
    text = (
        f"PPPC.SELF_TRAINING.IGNORE_TOP {settings.IGNORE_TOP} and IGNORE_BOTTOM "
        f"{settings.IGNORE_BOTTOM} leave {max(left, 0)} of the {height} rows of the target crop "
        "(INPUT.CROP.SIZE): scale them with the crop, or set them to 0"
    )
    if left <= 0:
        raise InputError(text)
    if 2 * left < height:
        logger.warning(text)


def _check_test_classes(name: str, found: Inspection, classes: list[str]) -> None:
    pixels = found.class_pixels
    shown = [class_name for class_name in classes if class_name in pixels]
    if not shown:
        raise InputError(
            f"{name}: no label shows a class of the model, all {len(found.labels)} are ignored: "
            "nothing can be evaluated. Choose another test set in DATASETS.TEST"
        )
    if len(shown) == 1:
        masks = ", as with masks of 0 and 255, where 255 is ignored"
        logger.warning(
            "%s: %s is the only class that a label shows: mIoU will be its IoU alone%s",
            name, shown[0], masks if "" in pixels and shown == [classes[0]] else "",
        )  # fmt: skip
