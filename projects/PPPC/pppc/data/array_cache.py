"""Decoded and resized images and labels, kept in a folder for the next time (DATALOADER.CACHE).

An entry has the arrays of one record, uncompressed, as a safetensors file. It is used where the record's
files are still those that it was made of (:mod:`pppc.data.file_state`), written under another name first,
and the same whoever writes it: any number of processes can share a folder.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..files import write_atomically
from .file_state import code_version, file_digest, file_times, same_by_times, text_hash

logger = logging.getLogger(__name__)

CODE = (
    "images", "label_images", "labels", "train_ids", "augmentation", "array_cache", "file_state",
)  # fmt: skip


class ArrayCache:
    """What is made of the files of a data set's records.

    Args:
        folder: where it is kept; it is made if need be.
        keys: of a record, that name the files which something is made of.
        rules: all that decides what is made of them, beside "intensities" of a record.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.txt")
        ...     _ = file.write_text("12")
        ...     cache, record = ArrayCache(folder, ["file_name"]), {"file_name": str(file)}
        ...     made = cache(record, lambda: {"digits": np.array([1, 2])})
        ...     kept = cache(record, lambda: {"digits": np.array([3, 4])})
        ...     kept["digits"].tolist(), cache.entry(record).exists()
        ([1, 2], True)
    """

    def __init__(self, folder: str, keys: Sequence[str], *rules: object):
        self.folder, self.keys = Path(folder), keys
        self.rules = f"{code_version(*CODE)} {rules}"
        self.writes = True  # until the disk is full

    def _files(self, record: Mapping) -> list[str]:
        return [record[key] for key in self.keys if key in record]

    def entry(self, record: Mapping) -> Path:
        """The file that keeps what is made of a record."""
        made_of = f"{self._files(record)} {record.get('intensities')} {self.rules}"
        return self.folder / f"{text_hash(made_of)}.safetensors"

    def __call__(
        self, record: Mapping, make: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """What ``make`` gives, or has given for the same files and rules."""
        entry, files = self.entry(record), self._files(record)
        arrays, states = _read(entry)
        times, checked = [file_times(file) for file in files], time.time_ns()
        if states and all(
            same_by_times(now, before, states["checked"])
            for now, before in zip(times, states["times"])
        ):
            return arrays
        digests = [file_digest(file) for file in files]
        if states.get("digests") != digests or None in digests:
            arrays = make()
        if self.writes and None not in digests and times == [file_times(file) for file in files]:
            self._write(entry, arrays, {"times": times, "checked": checked, "digests": digests})
        return arrays

    def _write(self, entry: Path, arrays: dict[str, np.ndarray], states: dict) -> None:
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(entry, save(whole, {"states": json.dumps(states)}))
        except OSError as error:
            self.writes = False
            logger.warning("DATALOADER.CACHE: this process keeps nothing more: %s", error)


def _read(entry: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of an entry, and the states of the files that they were made of; {}: there is none."""
    try:
        with safe_open(entry, "np") as file:
            states = json.loads(file.metadata()["states"])
            return {name: file.get_tensor(name) for name in file.keys()}, states  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}, {}  # or cut off, or of something else
