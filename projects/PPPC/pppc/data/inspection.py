"""Can every file of a data set be read? Each is decoded once, by the readers of training.

What was found is kept in the user's cache folder, so that the next check opens the changed files
alone (:mod:`pppc.data.file_state`).
"""

import gc
import json
import logging
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from detectron2.data import MetadataCatalog
from tqdm import tqdm

from ..errors import InputError
from ..files import write_atomically
from .file_state import code_version, file_digest, file_times, same_by_times, text_hash
from .images import image_size, read_image, size_and_bits
from .labels import LabelReader, pixel_histogram
from .stamps import stamp_of

logger = logging.getLogger(__name__)

CODE = ("images", "label_images", "labels", "train_ids", "inspection", "stamps", "file_state")


@dataclass
class Inspection:
    """What is known of the files of a data set.

    Attributes:
        problems: what is wrong, one line each.
        unreadable: which of that is wrong with one file alone, by it.
        images: (height, width) of each readable image, pixels, by its file.
        labels: pixels of each class that occurs, by its name (ignored ones by ""), of each label
            that was decoded, by its file.
        stamps: of converted labels, what they were made from (:mod:`pppc.data.stamps`), by the file.
    """

    problems: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    images: dict[str, tuple[int, int]] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)

    @property
    def class_pixels(self) -> Counter[str]:
        """The sum over all labels."""
        return sum(map(Counter, self.labels.values()), Counter())


def inspect_files(
    records: list[dict],
    reader: LabelReader | None,
    decode_images: Collection[int] | None = None,
    decode_labels: Collection[int] | None = None,
    progress: bool = False,
) -> Inspection:
    """Read the headers of all images and labels, decode some or all of them, compare their sizes.

    Args:
        records: of the data set, in Detectron2's format.
        reader: of the labels, as the data set's own classes; None: labels are not decoded.
        decode_images: of which records the images (and day images) are decoded; None: of all.
        decode_labels: likewise the labels.
        progress: whether to show a progress bar, on a terminal.
    """
    jobs: dict[str, Job] = {}

    def add(path: str, job: Job, chosen: bool) -> None:
        if chosen or path not in jobs:
            jobs[path] = job if chosen else job._replace(decode=None)

    image_job, label_job = Job("image", _decode_image), Job("label", None, _read_label_header)
    if reader is not None:
        label_job = Job(
            f"label {text_hash(f'{reader.space} {reader.train_ids} {reader.numbers_are_ids}')}",
            partial(_decode_label, reader=reader),
            _read_label_header,
        )
    for index, record in enumerate(records):
        chosen = decode_images is None or index in decode_images
        for key in ("file_name", "day_file_name"):
            if key in record:
                add(record[key], image_job, chosen)
        if "sem_seg_file_name" in record:
            chosen = reader is not None and (decode_labels is None or index in decode_labels)
            add(record["sem_seg_file_name"], label_job, chosen)
    found = look_at(jobs, progress)
    unreadable = {file: report["problem"] for file, report in found.items() if "problem" in report}
    checked = Inspection(list(unreadable.values()), unreadable)
    keys = ("file_name", "day_file_name", "sem_seg_file_name")
    for record in records:
        files = [record[key] for key in keys if key in record]
        sizes = {file: tuple(found[file]["size"]) for file in files if "size" in found[file]}
        if len(set(sizes.values())) > 1:
            shown = (f"{file} is {width}x{height}" for file, (height, width) in sizes.items())
            checked.problems.append(f"sizes differ: {', '.join(shown)}")
        if (file := record["file_name"]) in sizes:
            checked.images[file] = sizes[file]
        label = record.get("sem_seg_file_name", "")
        if "pixels" in found.get(label, {}):
            checked.labels[label] = found[label]["pixels"]
        if stamp := found.get(label, {}).get("stamp"):
            checked.stamps[label] = stamp
    return checked


def _read_header(path: str) -> dict:
    size, bits = size_and_bits(path)
    return {"size": size, "bits": bits}


def _read_label_header(path: str) -> dict:
    return {"size": image_size(path), "stamp": stamp_of(path)[0]}


class Job(NamedTuple):
    """How to look at a file.

    Attributes:
        kind: what it is read as.
        decode: reads the whole file, a report for JSON; None: its header is enough.
        header: reads the header.
    """

    kind: str
    decode: Callable[[str], dict] | None
    header: Callable[[str], dict] = _read_header


def look_at(jobs: dict[str, Job], progress: bool = False) -> dict[str, dict]:
    """What is known of files, or found by reading them; "problem" where one can't be read."""
    with _Cache(dict.fromkeys(os.path.dirname(path) for path in jobs)) as cache:
        found = {path: report for path, job in jobs.items() if (report := cache.known(path, job))}
        # Threads take longer to ask for an unchanged file than the file itself.
        others = {path: job for path, job in jobs.items() if path not in found}
        return found | dict(zip(others, _in_threads(cache.look, others, progress)))


def file_digests(paths: Iterable[str]) -> dict[str, str]:
    """Hashes of the content of files; those that have not changed are not opened again.

    Raises:
        InputError: a file can't be read.
    """
    found = look_at(dict.fromkeys(paths, Job("digest", _whole)))
    if problems := [report["problem"] for report in found.values() if "problem" in report]:
        raise InputError(problems[0])
    return {path: report["digest"] for path, report in found.items()}


def _whole(path: str) -> dict:
    if (digest := file_digest(path)) is None:
        raise InputError(f"{path}: can't be read")
    return {"digest": digest}


def high_depth_images(paths: Iterable[str]) -> list[str]:
    """Those images that have more than 8 bits a channel, by their headers."""
    found = look_at(dict.fromkeys(paths, Job("image", None)))
    return [path for path in found if found[path].get("bits", 8) > 8]


def refuse_problems(name: str, found: Inspection, size: int, allowed: float | None) -> None:
    """InputError for problems of files, but for a share that is ``allowed`` (None: none at all)."""
    if not found.problems:
        return
    number = len(found.problems) - 1
    more = f", and {number} more problem{'s' * (number > 1)}" if number else ""
    text = f"{name}: {found.problems[0]}{more}. `{check_command(name)}` names all of {size} images"
    if allowed is None or len(found.problems) > max(1, allowed * size):
        raise InputError(text)
    logger.warning("%s (DATALOADER.UNREADABLE is skip: they will be left out)", text)


def check_command(name: str) -> str:
    """The command that names everything that is wrong with a data set's files."""
    data_file = MetadataCatalog.get(name).get("data_file")
    return f"pppc check {shlex.quote(data_file)}" if data_file else f"pppc check {name} --read"


def _decode_image(path: str) -> dict:
    return {**_read_header(path), "size": read_image(path, "RGB").shape[:2]}


def _decode_label(path: str, reader: LabelReader) -> dict:
    label = reader.read(path)
    histogram = pixel_histogram(label)
    pixels = {name: int(n) for name, n in zip(reader.class_names, histogram) if n}
    if ignored := label.size - sum(pixels.values()):
        pixels[""] = ignored
    return {"size": label.shape, "pixels": pixels, "stamp": stamp_of(path)[0]}


def _in_threads(
    function: Callable[[str, Job], dict], jobs: dict[str, Job], progress: bool
) -> Iterator[dict]:
    pool = ThreadPoolExecutor(os.cpu_count())  # decoders let other threads run
    try:
        results = pool.map(function, jobs.keys(), jobs.values())
        yield from tqdm(results, total=len(jobs), unit="file", disable=None if progress else True)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest


def cache_folder() -> Path:
    """Where results are kept: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.getenv("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "pppc")


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python would look through all of its objects again and again while many new ones are made."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


# Of the cache files that were read last: their stamps and what they hold. A start asks several times.
_LOADED: dict[Path, tuple[tuple, dict[str, dict]]] = {}


class _Cache:
    """What was found in files, one cache file for each of these folders.

    Only what is right is kept: a file that could not be read may be readable the next time.
    """

    def __init__(self, folders: Iterable[str]):
        self.entries = {folder: self._load(folder) for folder in folders}
        self.changed: set[str] = set()

    def _path(self, folder: str) -> Path:
        return cache_folder() / f"checked_{text_hash(os.path.abspath(folder))}.json"

    def _load(self, folder: str) -> dict[str, dict]:
        path = self._path(folder)
        now = (file_times(path), code_version(*CODE))
        if path not in _LOADED or _LOADED[path][0] != now:
            _LOADED[path] = now, self._read(path)
        return _LOADED[path][1]

    @staticmethod
    def _read(path: Path) -> dict[str, dict]:
        try:
            with _no_garbage_collection():
                content = json.loads(path.read_bytes())
            if content["readers"] != code_version(*CODE):
                return {}
            keys = ("kind", "stamp", "checked", "digest", "report")
            return {
                name: entry
                for name, entry in content["files"].items()
                if all(key in entry for key in keys) and isinstance(entry["report"], dict)
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # absent, cut off or another version's: everything is read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in sorted(self.changed):
            try:
                cache_folder().mkdir(parents=True, exist_ok=True)
                content = {"readers": code_version(*CODE), "files": self.entries[folder]}
                path = self._path(folder)
                write_atomically(path, json.dumps(content).encode())
                _LOADED[path] = (file_times(path), code_version(*CODE)), self.entries[folder]
            except OSError as error:  # full, or not to be written to
                logger.info("The next check reads these files again: %s", error)
                return

    def known(self, path: str, job: Job) -> dict | None:
        """What was found in a file, if it is the same by its times; of its header, if that is enough."""
        folder, name = os.path.split(path)
        stamp = file_times(path)
        for whole in (True, False) if job.decode is None else (True,):
            entry = self.entries[folder].get(_key(job.kind, name, whole))
            if entry is not None and entry["kind"] == job.kind:
                if same_by_times(stamp, entry["stamp"], entry["checked"]):
                    return entry["report"]
        return None

    def look(self, path: str, job: Job) -> dict:
        """What is found by decoding a file, or in its header, or known of the same content."""
        folder, name = os.path.split(path)
        entry = self.entries[folder].get(key := _key(job.kind, name, job.decode is not None))
        stamp, checked, digest = file_times(path), time.time_ns(), None
        if job.decode is None:
            report = _report(job.header, path)
        else:
            digest = file_digest(path)
            if digest and entry and (entry["kind"], entry["digest"]) == (job.kind, digest):
                report = entry["report"]
            else:
                report = _report(job.decode, path)
        readable = "problem" not in report and (digest is not None or job.decode is None)
        if readable and stamp is not None and stamp == file_times(path):
            self.changed.add(folder)
            self.entries[folder][key] = {
                "kind": job.kind, "stamp": stamp, "checked": checked, "digest": digest,
                "report": report,
            }  # fmt: skip
        return report


def _key(kind: str, name: str, whole: bool) -> str:
    """One file may be looked at as several kinds, whole or its header alone."""
    return f"{kind.split()[0]}{'' if whole else ' header'} {name}"


def _report(read: Callable[[str], dict], path: str) -> dict:
    try:
        return read(path)
    except InputError as error:
        return {"problem": str(error)}
