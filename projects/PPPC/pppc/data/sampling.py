"""Which image comes when: rare-class sampling and endless, seekable streams of samples.

A stream's sample is a pure function of (seed, stream, position), so that a run can start at any
iteration and sees what an uninterrupted one would have seen, whatever the number of workers.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils.events import get_event_storage, has_event_storage
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import InputError
from ..processes import end_with_parent
from .workers import batches, or_input_error, shared_bytes

logger = logging.getLogger(__name__)

MAX_REDRAWS = 100  # of one place in a stream whose images can't be read


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
        min_pixels: in place of the share, pixels; 0: the share holds.
    """

    def __init__(
        self,
        counts: np.ndarray,
        temperature: float,
        min_area: float,
        seed: int,
        min_pixels: int = 0,
    ):
        self.seed = seed
        per_class = counts[:, :-1]
        totals = per_class.sum(0)
        self.classes, self.probabilities = rare_class_probabilities(
            {int(c): int(totals[c]) for c in np.flatnonzero(totals)}, temperature
        )
        threshold = min_pixels or min_area * counts.sum(1)
        self.images: dict[int, np.ndarray] = {}
        for train_id in self.classes:
            images = np.flatnonzero(per_class[:, train_id] > threshold)
            if not images.size:
                images = np.flatnonzero(per_class[:, train_id])
                logger.warning(
                    "Rare-class sampling: no image shows more than %g%s of class %d; "
                    "drawing it from the %d images that show any of it.",
                    min_pixels or min_area,
                    " pixels" if min_pixels else "",
                    train_id,
                    images.size,
                )
            self.images[train_id] = images

    def __call__(self, position: int) -> tuple[int, int]:
        rng = np.random.default_rng((self.seed, position))
        train_id = self.classes[rng.choice(len(self.classes), p=self.probabilities)]
        return int(rng.choice(self.images[train_id])), train_id


class LoaderOutput(NamedTuple):
    """What a stream gives: an exception would leave a loader's process as many lines of text.

    Attributes:
        value: a sample or a batch; None: no image could be read for it; an InputError: there is no
            memory for it.
        problems: what was wrong with images that were drawn and can't be read, by their files.
    """

    value: object
    problems: dict[str, str]


@dataclass
class SampleStream(Dataset):
    """The endless stream of one domain's mapped samples, by position.

    Args:
        records: the data set's records.
        draw: position -> (index of a record, class that the crop is to show or None).
        mapper: (record, class or None, seed) -> sample; InputError: a file can't be read.
        seed: of the augmentation; another one than the draw's, so that they are independent.
        skip_unreadable: draw again where an image can't be read. The draws of a position are a
            function of it, too, so a resumed run takes the same ones.
        unreadable: what is wrong with images that are never drawn, by their files.
    """

    records: list[dict]
    draw: Callable[[int], tuple[int, int | None]]
    mapper: Callable[[dict, int | None, int], object]
    seed: int
    skip_unreadable: bool = False
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, position: int) -> LoaderOutput:
        seed = np.random.SeedSequence((self.seed, position)).generate_state(1)[0]
        problems: dict[str, str] = {}
        for attempt in range(1 + MAX_REDRAWS * self.skip_unreadable):
            # Beyond the positions of any run, so that a second draw follows no other sample's.
            index, train_id = self.draw(position + attempt * 2**40)
            record = self.records[index]
            if record["file_name"] in problems:
                continue
            try:
                return LoaderOutput(self.mapper(record, train_id, int(seed)), problems)
            except InputError as error:
                problems[record["file_name"]] = str(error)
        return LoaderOutput(None, problems)


class MixedStream(Dataset):
    """The streams of several data sets as one.

    Of any number of positions from the first on each stream has its share, to within one, and its own
    positions without a gap; where a position leads depends on nothing but itself.

    Args:
        streams: of the data sets.
        weights: above 0, what the shares are in proportion to.
    """

    def __init__(self, streams: Sequence[SampleStream], weights: Sequence[float]):
        self.streams = list(streams)
        self.weights = [Fraction(weight) for weight in weights]
        self.records = [record for stream in streams for record in stream.records]
        self.skip_unreadable = streams[0].skip_unreadable
        self.unreadable = {file: text for s in streams for file, text in s.unreadable.items()}

    def place(self, position: int) -> tuple[int, int]:
        """The index of a stream, and the position in it."""
        left = sum(self.weights)
        for index, weight in enumerate(self.weights[:-1]):
            share = weight / left
            before = math.floor(position * share)
            if math.floor((position + 1) * share) > before:
                return index, before
            position, left = position - before, left - weight
        return len(self.weights) - 1, position

    def __getitem__(self, position: int) -> LoaderOutput:
        index, inside = self.place(position)
        return self.streams[index][inside]


class _Positions(Sampler):
    """Batches of stream positions of one process, from an iteration on, without end."""

    def __init__(self, batch_size: int, rank: int, world_size: int):
        if batch_size % world_size:
            raise InputError(
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
        max_unreadable: share of a stream's images that may be unreadable where they are skipped;
            one always may.

    Where Detectron2 records metrics, "data/unreadable" is the number of skipped images.

    Attributes:
        unreadable: of each stream, what is wrong with the images that this process skipped or the
            draw leaves out, by their files.

    Raises:
        InputError: a batch cannot be shared equally by the processes. From the iterator: an image
            cannot be read, or too many cannot, or shared memory is full.
        Stopped: from the iterator: a worker process was ended.
    """

    def __init__(
        self,
        streams: list[SampleStream | MixedStream],
        batch_sizes: list[int],
        collate: Callable[[list], object],
        num_workers: int,
        rank: int,
        world_size: int,
        max_unreadable: float = 0.0,
    ):
        self._streams = streams
        self._max_unreadable = max_unreadable
        self.unreadable = [dict(stream.unreadable) for stream in streams]
        self._positions = [_Positions(size, rank, world_size) for size in batch_sizes]
        self._loaders = [
            DataLoader(
                stream,
                batch_sampler=positions,
                collate_fn=partial(_collate_outputs, collate=collate),
                num_workers=-(-num_workers // len(streams)),
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=end_with_parent,
                generator=torch.Generator(),  # or a loader that starts would draw from the global one
            )
            for stream, positions in zip(streams, self._positions)
        ]

    @property
    def intensities(self) -> tuple[float, float]:
        """What becomes 0 and 255 in the last stream with images of more than 8 bits; 0, 0: in none."""
        return next((part.records[0]["intensities"] for part in self._deep_parts()), (0.0, 0.0))

    @intensities.setter
    def intensities(self, values: tuple[float, float]) -> None:
        for part in self._deep_parts():
            part.records[:] = [{**record, "intensities": values} for record in part.records]

    def _deep_parts(self) -> list[SampleStream]:
        """The data sets of the last stream that has images of more than 8 bits."""
        parts = [getattr(stream, "streams", [stream]) for stream in reversed(self._streams)]
        deep = [[part for part in several if "intensities" in part.records[0]] for several in parts]
        return next(filter(None, deep), [])

    def start_at(self, iteration: int) -> None:
        """Let the next iterator begin at ``iteration``."""
        for positions in self._positions:
            positions.start_iteration = iteration

    def shared_bytes(self) -> int:
        """Shared memory that the first batches' sizes call for; 0 without workers."""
        needed = 0
        for loader, positions in zip(self._loaders, self._positions):
            if loader.num_workers:
                drawn = loader.collate_fn([loader.dataset[i] for i in next(iter(positions))])
                needed += shared_bytes(loader, getattr(drawn.value, "nbytes", 0))
        return needed

    def __iter__(self) -> Iterator[tuple]:
        for drawn in batches(*self._loaders):
            pair = [self._checked(number, one) for number, one in enumerate(drawn)]
            if has_event_storage():
                get_event_storage().put_scalar(
                    "data/unreadable", sum(map(len, self.unreadable)), smoothing_hint=False
                )
            yield (*pair, None)[:2]

    def _checked(self, number: int, drawn: LoaderOutput) -> object:
        """The batch of stream ``number``, after a look at what could not be read for it."""
        if isinstance(drawn.value, InputError):
            raise drawn.value
        stream, unreadable = self._streams[number], self.unreadable[number]
        hint = "`pppc check FILE.yaml`, or `pppc check NAME --read`, names all of them"
        if drawn.problems and not stream.skip_unreadable:
            problem = next(iter(drawn.problems.values()))
            raise InputError(
                f"{problem}. Replace the file, or leave out such images by "
                f"DATALOADER.UNREADABLE skip; {hint}"
            )
        for file, problem in drawn.problems.items():
            if file not in unreadable:
                logger.warning("Skipped, another image is drawn instead: %s", problem)
                unreadable[file] = problem
        size = len(stream.records)
        if len(unreadable) > max(1, self._max_unreadable * size) or drawn.value is None:
            raise InputError(
                f"{len(unreadable)} of {size} images can't be read, more than "
                f"DATALOADER.MAX_UNREADABLE allows ({self._max_unreadable:g}), the last one: "
                f"{list(unreadable.values())[-1]}. {hint}"
            )
        return drawn.value


def _collate_outputs(
    samples: list[LoaderOutput], collate: Callable[[list], object]
) -> LoaderOutput:
    problems = {file: text for sample in samples for file, text in sample.problems.items()}
    values = [sample.value for sample in samples]
    if any(value is None for value in values):
        return LoaderOutput(None, problems)
    return LoaderOutput(or_input_error(lambda: collate(values)), problems)
