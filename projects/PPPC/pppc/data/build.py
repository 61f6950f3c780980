"""The loaders of training and evaluation."""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.utils import comm
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from ..errors import InputError
from ..processes import end_with_parent, from_main_process
from .catalog import dataset_records, label_reader, source_records
from .class_counts import count_classes, require_classes
from .mapper import SourceMapper, TargetMapper, TestMapper, collate
from .sampling import MixedStream, PairedLoader, RareClassDraw, SampleStream, ShuffledDraw
from .workers import batches, or_input_error, require_shared_memory, shared_bytes

logger = logging.getLogger(__name__)


def build_train_loader(cfg: CfgNode, seed: int) -> PairedLoader:
    """The endless stream of (source, target) batches, from ``cfg`` and a seed all ranks share.

    Raises:
        InputError: a source label is wrong, or the batches of the workers do not fit in shared memory.
    """
    source_draw, source_mapper, target_draw, target_mapper = (
        int(state) for state in np.random.SeedSequence(seed).generate_state(4)
    )
    sources = [
        _source_stream(cfg, name, source_draw + index, source_mapper + index)
        for index, name in enumerate(cfg.DATASETS.TRAIN)
    ]
    parts = list(sources)
    streams = [_mixed(sources, cfg.DATASETS.TRAIN_WEIGHTS)]
    batch_sizes = [cfg.SOLVER.IMS_PER_BATCH]
    if cfg.PPPC.SELF_TRAINING.ENABLED:
        targets = [
            _target_stream(cfg, name, target_draw + index, target_mapper + index)
            for index, name in enumerate(cfg.DATASETS.TARGET)
        ]
        parts += targets
        streams.append(_mixed(targets, cfg.DATASETS.TARGET_WEIGHTS))
        batch_sizes.append(cfg.SOLVER.TARGET_IMS_PER_BATCH)
    if cfg.DATALOADER.CACHE:
        from_main_process(lambda: _check_cache(cfg.DATALOADER.CACHE, parts))
    loader = PairedLoader(
        streams,
        batch_sizes,
        collate,
        cfg.DATALOADER.NUM_WORKERS,
        comm.get_rank(),
        comm.get_world_size(),
        cfg.DATALOADER.MAX_UNREADABLE,
    )
    if cfg.DATALOADER.NUM_WORKERS:
        from_main_process(lambda: _check_shared_memory(cfg, loader))
    return loader


def _source_stream(cfg: CfgNode, name: str, draw_seed: int, mapper_seed: int) -> SampleStream:
    records, _ = source_records(cfg, name)
    reader = label_reader(cfg, name)
    sampling = cfg.DATALOADER.RARE_CLASS_SAMPLING
    draw: RareClassDraw | ShuffledDraw = ShuffledDraw(len(records), draw_seed)
    unreadable: dict[str, str] = {}  # known before an image is drawn
    if sampling.ENABLED:
        counts, unreadable = from_main_process(lambda: count_classes(cfg, name, records))
        pixels = dict(zip((*reader.class_names, ""), counts.sum(0).tolist()))
        require_classes(name, pixels, f"{len(records)} labels", reader.class_names)
        draw = RareClassDraw(
            counts, sampling.TEMPERATURE, sampling.MIN_AREA, draw_seed, sampling.MIN_PIXELS
        )
    skip = cfg.DATALOADER.UNREADABLE == "skip"
    return SampleStream(records, draw, SourceMapper(cfg, reader), mapper_seed, skip, unreadable)


def _target_stream(cfg: CfgNode, name: str, draw_seed: int, mapper_seed: int) -> SampleStream:
    records = dataset_records(cfg, name, cfg.DATASETS.TARGET)
    draw = ShuffledDraw(len(records), draw_seed)
    skip = cfg.DATALOADER.UNREADABLE == "skip"
    return SampleStream(records, draw, TargetMapper(cfg), mapper_seed, skip)


def _mixed(streams: list[SampleStream], weights: Sequence[float]) -> SampleStream | MixedStream:
    """The streams of a domain's data sets, by default as often as they have images."""
    if len(streams) == 1:
        return streams[0]
    return MixedStream(streams, weights or [len(stream.records) for stream in streams])


def _check_shared_memory(cfg: CfgNode, loader: PairedLoader) -> None:
    """See that the workers of this machine's processes have room, those of an evaluation, too."""
    tests = [build_test_loader(cfg, name).shared_bytes() for name in cfg.DATASETS.TEST]
    needed = loader.shared_bytes() + max(tests, default=0)
    require_shared_memory(comm.get_local_size() * needed, cfg.DATALOADER.NUM_WORKERS)


def _check_cache(folder: str, parts: list[SampleStream]) -> None:
    """See that a folder has room for what DATALOADER.CACHE will keep there."""
    try:
        os.makedirs(folder, exist_ok=True)
        present = set(os.listdir(folder))
    except OSError as error:
        raise InputError(f"DATALOADER.CACHE: {error}. Give another folder, or ''") from error
    images = kept = needed = 0
    for stream in parts:
        mapper = stream.mapper
        assert isinstance(mapper, SourceMapper | TargetMapper) and mapper.cache is not None
        entries = [mapper.cache.entry(record) for record in stream.records]
        missing = [entry for entry in entries if entry.name not in present]
        images, kept = images + len(entries), kept + len(entries) - len(missing)
        if missing and os.access(folder, os.W_OK):
            stream[0]  # to see how large an entry is
            needed += len(missing) * next((e.stat().st_size for e in entries if e.exists()), 0)
    free = shutil.disk_usage(folder).free
    logger.info(
        "DATALOADER.CACHE: %s has %d of %d images; the others can take %.1f GB, %.1f GB are free",
        folder, kept, images, needed / 1e9, free / 1e9,
    )  # fmt: skip
    if needed > free:
        raise InputError(
            f"DATALOADER.CACHE can take {needed / 1e9:.1f} GB more, but {free / 1e9:.1f} GB are free in "
            f"{folder}: give a folder on a larger disk, or ''"
        )


def build_test_loader(cfg: CfgNode, name: str, records: list[dict] | None = None) -> "TestLoader":
    """Detectron2's loader over a test set, or ``records`` of it, one image a batch."""
    records = dataset_records(cfg, name) if records is None else records
    is_labeled = any("sem_seg_file_name" in record for record in records)
    mapper = TestMapper(cfg, label_reader(cfg, name) if is_labeled else None)
    return TestLoader(
        build_detection_test_loader(
            records,
            mapper=_OrInputError(mapper),
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )
    )


class TestLoader:
    """Batches of one record of :class:`TestMapper`.

    From the iterator: InputError, an image can't be read, or shared memory is full; Stopped, a worker was
    ended.
    """

    __test__ = False  # not a test case, whatever its name says

    def __init__(self, loader: DataLoader):
        self._loader = loader
        loader.worker_init_fn = end_with_parent

    def __len__(self) -> int:
        return len(self._loader)

    def shared_bytes(self) -> int:
        """Shared memory that the first image's size calls for; 0 without workers."""
        sample = self._loader.dataset[0]
        tensors = () if isinstance(sample, InputError) else _tensors(sample)
        return shared_bytes(self._loader, sum(tensor.nbytes for tensor in tensors))

    def __iter__(self) -> Iterator[list[dict]]:
        for ((sample,),) in batches(self._loader):
            if isinstance(sample, InputError):
                raise sample
            yield [sample]


class _OrInputError:
    """A mapper for a loader's process: see :func:`or_input_error`."""

    def __init__(self, mapper: TestMapper):
        self.mapper = mapper

    def __call__(self, record: dict) -> dict | InputError:
        return or_input_error(lambda: self._sample(record))

    def _sample(self, record: dict) -> dict:
        sample = self.mapper(record)
        if get_worker_info() is not None:
            # Here a lack of memory is an error; in the queue's thread it would only be printed.
            for tensor in _tensors(sample):
                tensor.share_memory_()
        return sample


def _tensors(sample: dict) -> list[Tensor]:
    return [value for value in sample.values() if isinstance(value, Tensor)]
