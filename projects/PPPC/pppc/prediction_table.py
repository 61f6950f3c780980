"""predictions.csv, which also tells what a later call need not predict again."""

import csv
from pathlib import Path
from typing import IO, Self

from .errors import InputError
from .files import atomic_write

COLUMNS = ["image", "mask", "seconds", "confidence"]


class PredictionTable:
    """A row per image, written when its files are, so that a call that was killed can be repeated.

    A part of several has a table of its own. A call without parts joins them.

    Args:
        folder: of the predictions; made if need be.
        shard: which part of how many.
        names: of the classes.
        again: images that are predicted again, as are the frames of these videos.

    Raises:
        InputError: the folder holds predictions of other classes.
    """

    def __init__(self, folder: Path, shard: tuple[int, int], names: list[str], again: set[str]):
        self.folder, self._header = folder, [*COLUMNS, *names]
        part, parts = shard
        self._path = folder / (
            "predictions.csv" if parts == 1 else f"predictions_{part}_of_{parts}.csv"
        )
        self._own: dict[str, list[str]] = {}  # rows of this table, by their images
        self._others: dict[str, list[str]] = {}
        joined = []
        for path in sorted(folder.glob("predictions*.csv")):
            rows = {
                image: row
                for image, row in self._read(path).items()
                if image not in again and image.rpartition("#")[0] not in again
            }
            if parts == 1 or path == self._path:
                self._own |= rows
                joined += [path] if path != self._path else []
            else:
                self._others |= rows
        folder.mkdir(parents=True, exist_ok=True)
        self._write()
        for path in joined:
            path.unlink()
        rows = self._others | self._own
        self._images = {row[1]: image for image, row in rows.items()}  # by their masks
        self._file = self._open(self._path, "a")

    def _write(self) -> None:
        with atomic_write(self._path) as unfinished, self._open(unfinished, "w") as file:
            csv.writer(file).writerows([self._header, *self._own.values()])

    @staticmethod
    def _open(path: Path, mode: str) -> IO[str]:
        # A file's name may hold bytes that are no text.
        return open(path, mode, newline="", encoding="utf-8", errors="surrogateescape")

    def _read(self, path: Path) -> dict[str, list[str]]:
        with self._open(path, "r") as file:
            first, *rows = list(csv.reader(file)) or [self._header]
        if first != self._header:
            raise InputError(
                f"{path} is of a model of other classes, or no table of predictions: choose another "
                "--output"
            )
        # A call that was killed may have left half a row.
        return {row[0]: row for row in rows if len(row) == len(first)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._write()  # each image once, whatever its files were predicted again for

    def has(self, image: str) -> bool:
        """Whether the image, or a video's frame, was predicted."""
        return image in self._own or image in self._others

    def claim(self, mask: str, image: str) -> None:
        """See that a mask's name is free for an image.

        Raises:
            InputError: it is another image's.
        """
        other = self._images.setdefault(mask, image)
        if other != image:
            raise InputError(
                f"{image}: {mask} is the prediction of {other} already: choose another --output"
            )

    def add(self, row: list[str]) -> None:
        """Add an image's row: its path, its mask's, seconds, mean confidence, the classes' shares."""
        self._own[row[0]] = row
        csv.writer(self._file).writerow(row)
        self._file.flush()
