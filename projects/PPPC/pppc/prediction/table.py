"""predictions.csv, which also tells what a later call need not predict again."""

import csv
import io
from pathlib import Path
from typing import IO, Self

from ..errors import InputError
from ..files import atomic_write

COLUMNS = ["image", "name", "seconds", "confidence"]


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
        # By the image its name and its line: of a hundred thousand images the figures alone would take
        # ten times the memory.
        self._own: dict[str, tuple[str, str]] = {}
        self._others: dict[str, tuple[str, str]] = {}
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
        self._images = {name: image for image, (name, _) in rows.items()}
        self._file = self._open(self._path, "a")

    def _write(self) -> None:
        with atomic_write(self._path) as unfinished, self._open(unfinished, "w") as file:
            file.write(_line(self._header))
            file.writelines(line for _, line in self._own.values())

    @staticmethod
    def _open(path: Path, mode: str) -> IO[str]:
        # A file's name may hold bytes that are no text.
        return open(path, mode, newline="", encoding="utf-8", errors="surrogateescape")

    def _read(self, path: Path) -> dict[str, tuple[str, str]]:
        with self._open(path, "r") as file:
            rows = csv.reader(file)
            if next(rows, self._header) != self._header:
                raise InputError(
                    f"{path} is of a model of other classes, or no table of predictions: choose another "
                    "--output"
                )
            # A call that was killed may have left half a row.
            whole = (row for row in rows if len(row) == len(self._header))
            return {row[0]: (row[1], _line(row)) for row in whole}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._write()  # each image once, whatever its files were predicted again for

    def has(self, image: str) -> bool:
        """Whether the image, or a video's frame, was predicted."""
        return image in self._own or image in self._others

    def claim(self, name: str, image: str) -> None:
        """See that the name of an image's outputs is free.

        Raises:
            InputError: it is another image's.
        """
        other = self._images.setdefault(name, image)
        if other != image:
            raise InputError(
                f"{image}: {name} is the prediction of {other} already: choose another --output"
            )

    def add(self, row: list[str]) -> None:
        """Add an image's row: its path, its outputs' name, seconds, mean confidence, the classes' shares."""
        line = _line(row)
        self._own[row[0]] = row[1], line
        self._file.write(line)
        self._file.flush()


def _line(row: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(row)
    return text.getvalue()
