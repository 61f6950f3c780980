"""Which image comes when: rare-class sampling and endless, seekable streams of samples.

A stream's sample is a pure function of (seed, stream, position), so that a run can start at any
iteration and sees what an uninterrupted one would have seen, whatever the number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = [
    "PairedLoader",
    "RareClassDraw",
    "SampleStream",
    "ShuffledDraw",
    "rare_class_probabilities",
]

logger = logging.getLogger(__name__)


def rare_class_probabilities(
    pixels_per_class: Mapping[int, int], temperature: float
) -> tuple[list[int], np.ndarray]:
    """How often to draw each class (DAFormer, arXiv 2111.14887).

    Args:
        pixels_per_class: pixel count by train ID.
        temperature: of the softmax over one minus the class frequency.

    Returns:
        the train IDs by ascending count, and their probabilities in that order.
    """
    classes = sorted(pixels_per_class, key=lambda train_id: pixels_per_class[train_id])
    counts = torch.tensor([pixels_per_class[train_id] for train_id in classes], dtype=torch.float64)
    frequency = counts / counts.sum()
    return classes, torch.softmax((1 - frequency) / temperature, dim=0).numpy()


class ShuffledDraw:
    """Position -> index of an image: every image once per epoch, in an order of its own each."""

    def __init__(self, size: int, seed: int):
        self.size = size
        self.seed = seed

    def __call__(self, position: int) -> tuple[int, None]:
        epoch, offset = divmod(position, self.size)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        return int(order[offset]), None


class RareClassDraw:
    """Position -> index of an image that shows a class drawn by rarity, and that class.

    Args:
        counts: ``(images, classes + 1)`` pixels per class; the last column are ignored pixels.
        temperature: see :func:`rare_class_probabilities`.
        min_area: an image is drawn for a class that covers more than this share of it. A class
            that no image shows so much of is drawn from those that show any of it.
        seed: of the draws.
    """

    def __init__(self, counts: np.ndarray, temperature: float, min_area: float, seed: int):
        self.seed = seed
        per_class = counts[:, :-1]
        totals = per_class.sum(0)
        self.classes, self.probabilities = rare_class_probabilities(
            {int(c): int(totals[c]) for c in np.flatnonzero(totals)}, temperature
        )
        threshold = min_area * counts.sum(1)
        self.images: dict[int, np.ndarray] = {}
        for train_id in self.classes:
            images = np.flatnonzero(per_class[:, train_id] > threshold)
            if not images.size:
                images = np.flatnonzero(per_class[:, train_id])
                logger.warning(
                    "Rare-class sampling: no image shows more than %.3g of class %d; "
                    "drawing it from the %d images that show any of it.",
                    min_area,
                    train_id,
                    images.size,
                )
            self.images[train_id] = images

    def __call__(self, position: int) -> tuple[int, int]:
        rng = np.random.default_rng((self.seed, position))
        train_id = self.classes[rng.choice(len(self.classes), p=self.probabilities)]
        return int(rng.choice(self.images[train_id])), train_id


class SampleStream(Dataset):
    """The endless stream of one domain's mapped samples, by position.

    Args:
        records: the data set's records.
        draw: position -> (index of a record, class that the crop is to show or None).
        mapper: (record, class or None, seed) -> sample.
        seed: of the augmentation; another one than the draw's, so that they are independent.
    """

    def __init__(
        self,
        records: list[dict],
        draw: Callable[[int], tuple[int, int | None]],
        mapper: Callable[[dict, int | None, int], object],
        seed: int,
    ):
        self.records = records
        self.draw = draw
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, position: int) -> object:
        index, train_id = self.draw(position)
        seed = np.random.SeedSequence((self.seed, position)).generate_state(1)[0]
        return self.mapper(self.records[index], train_id, int(seed))


class _Positions(Sampler):
    """Batches of stream positions of one process, from an iteration on, without end."""

    def __init__(self, batch_size: int, rank: int, world_size: int):
        if batch_size % world_size:
            raise ValueError(
                f"{batch_size} images per iteration cannot be shared by {world_size} processes: "
                "SOLVER.IMS_PER_BATCH and SOLVER.TARGET_IMS_PER_BATCH must be multiples of it"
            )
        self.batch_size = batch_size
        self.share = batch_size // world_size
        self.rank = rank
        self.start_iteration = 0

    def __iter__(self) -> Iterator[list[int]]:
        start = self.start_iteration * self.batch_size + self.rank * self.share
        while True:
            yield list(range(start, start + self.share))
            start += self.batch_size


class PairedLoader:
    """Endless (source batch, target batch) pairs; the target batch is None without a target.

    Args:
        streams: the source stream and, for adaptation, the target stream.
        batch_sizes: images per iteration of each stream, over all processes.
        collate: list of samples -> batch.
        num_workers: loader processes, shared by the streams.
        rank, world_size: of this process.

    Raises:
        ValueError: a batch cannot be shared equally by the processes.
    """

    def __init__(
        self,
        streams: list[SampleStream],
        batch_sizes: list[int],
        collate: Callable[[list], object],
        num_workers: int,
        rank: int,
        world_size: int,
    ):
        self._positions = [_Positions(size, rank, world_size) for size in batch_sizes]
        self._loaders = [
            DataLoader(
                stream,
                batch_sampler=positions,
                collate_fn=collate,
                num_workers=-(-num_workers // len(streams)),
                pin_memory=torch.cuda.is_available(),
            )
            for stream, positions in zip(streams, self._positions)
        ]

    def start_at(self, iteration: int) -> None:
        """Let the next iterator begin at ``iteration``."""
        for positions in self._positions:
            positions.start_iteration = iteration

    def __iter__(self) -> Iterator[tuple]:
        batches = zip(*self._loaders)
        if len(self._loaders) == 1:
            return ((source, None) for (source,) in batches)
        return batches
