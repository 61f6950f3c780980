"""Reading label files as train IDs, and counting their classes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from PIL import Image

from .train_ids import LABEL_SPACES, LabelSpace

__all__ = ["LabelReader", "count_class_pixels"]


class LabelReader:
    """Reads the label files of one data set.

    Args:
        label_space: a key of :data:`LABEL_SPACES`.
        train_ids: the files hold train IDs already, not the data set's own IDs.
    """

    def __init__(self, label_space: str, train_ids: bool):
        self.space: LabelSpace = LABEL_SPACES[label_space]
        self.train_ids = train_ids

    @property
    def num_classes(self) -> int:
        return len(self.space.class_names)

    @cached_property
    def _table(self) -> np.ndarray:
        return np.arange(256, dtype=np.uint8) if self.train_ids else self.space.lookup_table()

    @cached_property
    def _known(self) -> np.ndarray:
        if not self.train_ids:
            return self.space.known_ids()
        known = np.zeros(256, dtype=bool)
        known[: self.num_classes] = known[self.space.ignore_label] = True
        return known

    def read(self, path: str) -> np.ndarray:
        """The train IDs in a file, ``(H, W)`` uint8.

        Raises:
            ValueError: the file is no image of one 8-bit channel, or holds a value that is not in
                the label space; the message names the file.
        """
        try:
            with Image.open(path) as image:
                mode, label = image.mode, np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path}: not a readable label image ({error})") from error
        if mode not in ("L", "P"):
            raise ValueError(
                f"{path}: a label file has one 8-bit channel (PNG mode L or P), this one has "
                f"mode {mode}. Convert the data set with tools/convert_datasets first."
            )
        present = np.bincount(label.ravel(), minlength=256) > 0
        if (unknown := np.flatnonzero(present & ~self._known)).size:
            kind = "train IDs" if self.train_ids else "label IDs"
            raise ValueError(
                f"{path}: value {', '.join(map(str, unknown))} is none of the data set's {kind} "
                f"({', '.join(map(str, np.flatnonzero(self._known)))}). Mend or convert this file."
            )
        return self._table[label]


def count_class_pixels(paths: list[str], reader: LabelReader) -> np.ndarray:
    """Pixels of each class in each file, ``(files, classes + 1)`` int64; last: ignored pixels.

    Every label is read once, so that a wrong one is found before training.

    Raises:
        ValueError: from :meth:`LabelReader.read`.
    """

    def count(path: str) -> np.ndarray:
        counts = np.bincount(reader.read(path).ravel(), minlength=256)
        return np.append(counts[: reader.num_classes], counts[reader.space.ignore_label])

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(count, paths)))
