"""Reading label files as train IDs, and counting their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from .class_statistics import read_statistics
from .train_ids import LABEL_SPACES, LabelSpace

__all__ = ["LabelReader", "count_class_pixels", "pixel_histogram"]


class LabelReader:
    """Reads the label files of one data set, as train IDs of these or of other classes.

    Args:
        label_space: a key of :data:`LABEL_SPACES`.
        train_ids: the files hold train IDs already, not the data set's own IDs.
        class_names: of the train IDs to return; None: the label space's. Classes are matched by
            name, and those of the label space that are not among them are ignored.
    """

    def __init__(
        self, label_space: str, train_ids: bool, class_names: Sequence[str] | None = None
    ):
        self.label_space = label_space
        self.space: LabelSpace = LABEL_SPACES[label_space]
        self.train_ids = train_ids
        self.class_names = tuple(class_names or self.space.class_names)

    def with_classes(self, class_names: Sequence[str]) -> LabelReader:
        """A reader of the same files whose train IDs are those of ``class_names``."""
        return LabelReader(self.label_space, self.train_ids, class_names)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def means(self) -> dict[str, list[str]]:
        """Class names of the means of :attr:`LabelSpace.means`, those left that are returned."""
        names = self.space.class_names
        return {
            mean: [names[train_id] for train_id in ids if names[train_id] in self.class_names]
            for mean, ids in self.space.means.items()
        }

    @cached_property
    def returned_ids(self) -> np.ndarray:
        """Train ID to return by the label space's own train ID, ``(256,)`` uint8."""
        table = np.full(256, self.space.ignore_label, dtype=np.uint8)
        for train_id, name in enumerate(self.space.class_names):
            if name in self.class_names:
                table[train_id] = self.class_names.index(name)
        return table

    @cached_property
    def _table(self) -> np.ndarray:
        if self.train_ids:
            return self.returned_ids
        return self.returned_ids[self.space.lookup_table()]

    @cached_property
    def _known(self) -> np.ndarray:
        if not self.train_ids:
            return self.space.known_ids()
        known = np.zeros(256, dtype=bool)
        known[: len(self.space.class_names)] = known[self.space.ignore_label] = True
        return known

    def read(self, path: str) -> np.ndarray:
        """The train IDs in a file, ``(H, W)`` uint8.

        Raises:
            InputError: the file is no image of one 8-bit channel, or holds a value that is not in
                the label space; the message names the file.
        """
        try:
            with Image.open(path) as image:
                mode, label = image.mode, np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise InputError(f"{path}: not a readable label image ({error})") from error
        if mode not in ("L", "P"):
            raise InputError(
                f"{path}: a label file has one 8-bit channel (PNG mode L or P), this one has "
                f"mode {mode}. Convert the data set with tools/convert_datasets first."
            )
        present = pixel_histogram(label) > 0
        if (unknown := np.flatnonzero(present & ~self._known)).size:
            kind = "train IDs" if self.train_ids else "label IDs"
            raise InputError(
                f"{path}: value {', '.join(map(str, unknown))} is none of the data set's {kind} "
                f"({', '.join(map(str, np.flatnonzero(self._known)))}). Mend or convert this file."
            )
        return cv2.LUT(label, self._table)


def pixel_histogram(label: np.ndarray) -> np.ndarray:
    """Pixels of each value of a uint8 image ``(H, W)``: ``(256,)`` int64."""
    if label.size >= 2**24:  # more than OpenCV's float32 counts hold exactly
        return np.bincount(label.ravel(), minlength=256)
    # In labels most pixels equal the one before, and adding to one counter again and again is slow:
    # counting pairs from the two halves takes half as long as counting pixels.
    pixels = label.ravel()
    halves = pixels[: pixels.size // 2 * 2].reshape(2, 1, -1)
    pairs = cv2.calcHist(list(halves), [0, 1], None, [256, 256], [0, 256, 0, 256])
    counts = (pairs.sum(axis=0) + pairs.sum(axis=1)).astype(np.int64)
    if pixels.size % 2:
        counts[pixels[-1]] += 1
    return counts


def count_class_pixels(
    paths: list[str], reader: LabelReader, statistics: Path | None = None
) -> np.ndarray:
    """Pixels of each class in each file, ``(files, classes + 1)`` int64; last: ignored pixels.

    Without statistics every label is read, so that a wrong one is found before training; with them,
    those alone that are newer.

    Args:
        paths: of the labels.
        reader: of the labels.
        statistics: the data set's `sample_class_stats.json`, if it has one.

    Raises:
        InputError: from :meth:`LabelReader.read` or :func:`read_statistics`.
    """
    known: list[dict[int, int] | None] = [None] * len(paths)
    if statistics is not None and statistics.is_file():
        written = statistics.stat().st_mtime
        known = [
            counts if os.path.getmtime(path) <= written else None
            for path, counts in zip(paths, read_statistics(statistics, paths))
        ]
    num_classes, ignore_label = reader.num_classes, reader.space.ignore_label

    def count(path: str, known: dict[int, int] | None) -> np.ndarray:
        if known is None:
            pixels = pixel_histogram(reader.read(path))
            return np.append(pixels[:num_classes], pixels[ignore_label])
        counts = np.zeros(num_classes + 1, np.int64)
        with Image.open(path) as image:
            counts[-1] = image.width * image.height
        for train_id, number in known.items():
            if train_id >= len(reader.space.class_names):
                raise InputError(
                    f"{statistics} counts train ID {train_id} in {path}, the data set's end at "
                    f"{len(reader.space.class_names) - 1}: they are another data set's. Convert again."
                )
            if (returned := reader.returned_ids[train_id]) != ignore_label:
                counts[returned] += number
                counts[-1] -= number
        return counts

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(count, paths, known)))
