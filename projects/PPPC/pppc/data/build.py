"""The loaders of training and evaluation, and the checks of the data before any training."""

from __future__ import annotations

import logging

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader

from .catalog import dataset_metadata, model_metadata, statistics_file
from .labels import LabelReader, count_class_pixels
from .mapper import SourceMapper, TargetMapper, TestMapper, collate
from .sampling import PairedLoader, RareClassDraw, SampleStream, ShuffledDraw

__all__ = ["build_test_loader", "build_train_loader", "check_data", "label_reader"]

logger = logging.getLogger(__name__)


def _only(names: tuple[str, ...], key: str) -> str:
    if len(names) != 1:
        raise ValueError(f"{key} must name one data set, it names {len(names)}: {tuple(names)}")
    return names[0]


def check_data(cfg: CfgNode, training: bool = True) -> None:
    """Find what is wrong with the configured data sets before any time is spent.

    Args:
        cfg: the configuration.
        training: check source and target, not the test sets alone.

    Raises:
        KeyError: a data set's name is unknown.
        FileNotFoundError: a folder, image or label is missing.
        ValueError: the classes do not fit the model, or a label holds a foreign value.
    """
    classes = model_metadata(cfg).stuff_classes
    trained_on = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TARGET) if training else ()
    for name in (*trained_on, *cfg.DATASETS.TEST):
        metadata = dataset_metadata(name)
        logger.info("%s: %d images", name, len(DatasetCatalog.get(name)))
        absent = [class_name for class_name in classes if class_name not in metadata.stuff_classes]
        if len(absent) == len(classes):
            raise ValueError(
                f"{name} and the model have no class in common: {', '.join(metadata.stuff_classes)}"
                f" there, {', '.join(classes)} here. Classes are matched by name"
            )
        if absent:
            logger.warning("%s never labels %s", name, ", ".join(absent))
    for name in cfg.DATASETS.TEST:
        count_class_pixels(_labels(name), label_reader(cfg, name))


def label_reader(cfg: CfgNode, name: str) -> LabelReader:
    """Reads the labels of data set ``name`` as the model's classes."""
    return dataset_metadata(name).label_reader.with_classes(model_metadata(cfg).stuff_classes)


def _labels(name: str) -> list[str]:
    """The label files of a data set.

    Raises:
        ValueError: an image has none.
    """
    records = DatasetCatalog.get(name)
    if unlabeled := [record for record in records if "sem_seg_file_name" not in record]:
        raise ValueError(
            f"{name} has no labels (for example none for {unlabeled[0]['file_name']}): it can be "
            "a target (DATASETS.TARGET), not a source or a test set"
        )
    return [record["sem_seg_file_name"] for record in records]


def build_train_loader(cfg: CfgNode, seed: int) -> PairedLoader:
    """The endless stream of (source, target) batches, from ``cfg`` and a seed all ranks share.

    Raises:
        ValueError: a source label is wrong, or DATASETS.TRAIN or TARGET is not one data set.
    """
    source_draw, source_mapper, target_draw, target_mapper = (
        int(state) for state in np.random.SeedSequence(seed).generate_state(4)
    )
    source = _only(cfg.DATASETS.TRAIN, "DATASETS.TRAIN")
    records = DatasetCatalog.get(source)
    reader = label_reader(cfg, source)
    counts = count_class_pixels(_labels(source), reader, statistics_file(source))
    sampling = cfg.DATALOADER.RARE_CLASS_SAMPLING
    streams = [
        SampleStream(
            records,
            RareClassDraw(counts, sampling.TEMPERATURE, sampling.MIN_AREA, source_draw)
            if sampling.ENABLED
            else ShuffledDraw(len(records), source_draw),
            SourceMapper(cfg, reader),
            source_mapper,
        )
    ]
    batch_sizes = [cfg.SOLVER.IMS_PER_BATCH]
    if cfg.PPPC.SELF_TRAINING.ENABLED:
        records = DatasetCatalog.get(_only(cfg.DATASETS.TARGET, "DATASETS.TARGET"))
        draw = ShuffledDraw(len(records), target_draw)
        streams.append(SampleStream(records, draw, TargetMapper(cfg), target_mapper))
        batch_sizes.append(cfg.SOLVER.TARGET_IMS_PER_BATCH)
    return PairedLoader(
        streams,
        batch_sizes,
        collate,
        cfg.DATALOADER.NUM_WORKERS,
        comm.get_rank(),
        comm.get_world_size(),
    )


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """Detectron2's loader over a test set, one image a batch."""
    return build_detection_test_loader(
        DatasetCatalog.get(name),
        mapper=TestMapper(cfg),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
