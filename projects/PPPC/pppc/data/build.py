"""The loaders of training and evaluation."""

from __future__ import annotations

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader

from .catalog import label_files, label_reader, statistics_file
from .labels import count_class_pixels
from .mapper import SourceMapper, TargetMapper, TestMapper, collate
from .sampling import PairedLoader, RareClassDraw, SampleStream, ShuffledDraw

__all__ = ["build_test_loader", "build_train_loader"]


def _only(names: tuple[str, ...], key: str) -> str:
    if len(names) != 1:
        raise ValueError(f"{key} must name one data set, it names {len(names)}: {tuple(names)}")
    return names[0]


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
    counts = count_class_pixels(label_files(source, records), reader, statistics_file(source))
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
