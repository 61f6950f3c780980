"""Which files a split consists of, and which files of its folders it leaves out.

An image is known by its path below the split's folder, without the ending; a label belongs to the
image of the same path.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import InputError
from ..files import user_path
from .splits import Split

__all__ = [
    "IMAGE_ENDINGS",
    "SPARE_LABELS",
    "Listing",
    "converted_root",
    "datasets_root",
    "list_split",
]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")  # in any case
SPARE_LABELS = "labels without an image"  # a reason to leave files out


def datasets_root() -> Path:
    """The folder that holds the data sets, as Detectron2 finds it."""
    name = "DETECTRON2_DATASETS"
    return Path(user_path(os.getenv(name, "datasets"), f"the environment variable {name}"))


def converted_root(path: str) -> Path:
    """The root below which ``path`` is: PPPC_CONVERTED where it is there, else the data sets'.

    The environment variable PPPC_CONVERTED names a folder that mirrors DETECTRON2_DATASETS, for
    converted labels and statistics of data sets whose own folders are not to be written to.

    Raises:
        InputError: PPPC_CONVERTED is no folder.
    """
    if converted := os.getenv("PPPC_CONVERTED"):
        converted = user_path(converted, "the environment variable PPPC_CONVERTED")
        if not os.path.isdir(converted):
            raise InputError(
                f"the environment variable PPPC_CONVERTED names no folder: {converted}. Make it "
                "(a converter's --out-dir does), or unset the variable"
            )
        if os.path.exists(os.path.join(converted, path)):
            return Path(converted)
    return datasets_root()


@dataclass
class Listing:
    """The files of a split.

    Attributes:
        records: in Detectron2's format, sorted by file name: dictionaries with "file_name",
            "image_id" and, where the split has them, "sem_seg_file_name" and "day_file_name".
        left_out: what was not taken: paths below the split's folders, by the reason.
        label_folder: where the labels are; None: there are none.
    """

    records: list[dict] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    label_folder: Path | None = None

    def describe_left_out(self) -> str:
        """One line: how many files were not taken, why, and some of them; "" if all were."""
        return "; ".join(
            f"{len(paths)} {reason} ({_some(paths)})" for reason, paths in self.left_out.items()
        )


def list_split(name: str, split: Split) -> Listing:
    """Find the images of a split, their labels and their day images.

    Raises:
        InputError: a folder, the images, labels or day images are missing, files cannot be told
            apart, or a CSV file of correspondences is wrong. All that are missing are counted.
    """
    root, listing = datasets_root(), Listing()
    if split.label_folder is not None:
        listing.label_folder = converted_root(split.label_folder) / split.label_folder
    folders = [root / f for f in (split.image_folder, split.correspondences, split.day_folder) if f]
    for folder in filter(None, (*folders, listing.label_folder)):
        if not folder.is_dir():
            raise InputError(
                f"{name}: no folder {folder}. {split.hint} The root is the environment variable "
                f"DETECTRON2_DATASETS ({os.getenv('DETECTRON2_DATASETS', 'not set')})."
            )
    images = _by_id(root / split.image_folder, split, split.image_suffix, listing)
    if unusable := [path for i in split.unusable & images.keys() for path in images.pop(i)]:
        listing.left_out["known to be unusable"] = unusable
    if not images:
        left_out = listing.describe_left_out()
        raise InputError(
            f"{name}: no image {' or '.join(split.image_patterns)} in {root / split.image_folder}"
            f"{f', but {left_out}' if left_out else ''}. {split.hint}"
        )
    _refuse_several(name, "image", images)
    listing.records = [
        {"file_name": str(root / split.image_folder / found[0]), "image_id": image_id}
        for image_id, found in sorted(images.items(), key=lambda item: item[1][0].split("/"))
    ]
    if listing.label_folder is not None:
        _add_labels(listing, listing.label_folder, name, split)
    if split.correspondences is not None and split.day_folder is not None:
        _add_day_images(listing, root / split.correspondences, root / split.day_folder, name, split)
    return listing


def _add_labels(listing: Listing, folder: Path, name: str, split: Split) -> None:
    labels = _by_id(folder, split, split.label_suffix)
    images = {record["image_id"] for record in listing.records}
    for image_id, found in labels.items():
        if image_id not in images and image_id not in split.unusable:
            listing.left_out.setdefault(SPARE_LABELS, []).extend(found)
    missing = [record for record in listing.records if record["image_id"] not in labels]
    if missing:
        expected = [record["image_id"] + split.label_suffix for record in missing]
        spare = listing.left_out.get(SPARE_LABELS, [])
        raise InputError(
            f"{name}: {len(missing)} of {len(images)} images have no label in "
            f"{folder} ({_some(expected)})"
            f"{f', and {len(spare)} labels no image ({_some(spare)})' if spare else ''}. "
            f"{split.hint}"
        )
    _refuse_several(name, "label", {image_id: labels[image_id] for image_id in sorted(images)})
    for record in listing.records:
        record["sem_seg_file_name"] = str(folder / labels[record["image_id"]][0])


def _add_day_images(
    listing: Listing, folder: Path, day_folder: Path, name: str, split: Split
) -> None:
    """Add to each night image the "day_file_name" that the folder's CSV files name for it."""
    day_images = _by_id(day_folder, split, split.image_suffix)
    known = {record["image_id"] for record in listing.records}
    day_of: dict[str, str] = {}
    for path in sorted(_files_below(folder)):
        if _is_hidden(path) or not path.lower().endswith(".csv"):
            continue
        # Names of files may hold bytes that are no text.
        try:
            text = (folder / path).read_text(encoding="utf-8-sig", errors="surrogateescape")
            rows = [row for row in csv.reader(text.splitlines()) if row]
        except (OSError, csv.Error) as error:
            raise InputError(
                f"{name}: {folder / path} can't be read ({error}). {split.hint}"
            ) from error
        for number, row in enumerate(rows, 1):
            place = f"{name}: {folder / path}, row {number}"
            _, _, night_id = row[0].strip().replace("\\", "/").partition("night/")
            _, _, day_id = "".join(row[1:2]).strip().replace("\\", "/").partition("day/")
            if not night_id or not day_id:
                raise InputError(
                    f"{place} is not .../night/SEQUENCE/FRAME,.../day/SEQUENCE/FRAME. {split.hint}"
                )
            if night_id not in known or day_id not in day_images:
                missing = night_id if night_id not in known else day_folder / day_id
                raise InputError(
                    f"{place} names {missing}{split.image_suffix}, which is not there. {split.hint}"
                )
            day_of[night_id] = str(day_folder / day_images[day_id][0])
    if without := [r["file_name"] for r in listing.records if r["image_id"] not in day_of]:
        raise InputError(
            f"{name}: no CSV file in {folder} names a day image for {len(without)} of "
            f"{len(known)} images ({_some(without)}). {split.hint}"
        )
    for record in listing.records:
        record["day_file_name"] = day_of[record["image_id"]]


def _by_id(
    folder: Path, split: Split, suffix: str, listing: Listing | None = None
) -> dict[str, list[str]]:
    """The files below a folder that have a split's names, by the image ID.

    Args:
        folder: of images or of labels.
        split: whose patterns the images' names match.
        suffix: that follows the ID in the files' names; its ending stands for every usual one.
        listing: takes what is left out.
    """
    found: dict[str, list[str]] = {}
    end, image_end = _stem(suffix), _stem(split.image_suffix)
    patterns = [_stem(pattern) for pattern in split.image_patterns]
    # Where images and labels share a folder, the split's own endings alone tell them apart.
    together = split.label_folder == split.image_folder
    endings = (suffix[len(end) :].lower(),) if together else IMAGE_ENDINGS
    for path in _files_below(folder):
        stem, ending = os.path.splitext(path)
        image_id = stem.removesuffix(end)
        if _is_hidden(path):
            reason = "hidden"
        elif ending.lower() not in endings:
            reason = f"without an ending of images ({', '.join(endings)})"
        elif not stem.endswith(end) or not any(
            _matches(image_id + image_end, pattern) for pattern in patterns
        ):
            reason = f"not named as {' or '.join(split.image_patterns)}"
        else:
            found.setdefault(image_id, []).append(path)
            continue
        if listing is not None:
            listing.left_out.setdefault(reason, []).append(path)
    return found


def _refuse_several(name: str, kind: str, found: dict[str, list[str]]) -> None:
    """Raises InputError where files differ in their ending alone: which one is meant?"""
    if several := [" and ".join(paths) for paths in found.values() if len(paths) > 1]:
        raise InputError(
            f"{name}: {len(several)} images have more than one {kind} file ({_some(several)}): "
            "keep one of each"
        )


def _files_below(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder, relative to it; links to folders are followed."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} can't be listed ({error.strerror})") from error

    real_paths: dict[str, str] = {}
    for path, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real_paths[path] = real = os.path.realpath(path)
        above = path
        while above != str(folder) and real_paths[above := os.path.dirname(above)] != real:
            pass
        if above != path and real_paths[above] == real:  # a link leads back
            folders.clear()
            continue
        below = os.path.relpath(path, folder)
        yield from (name if below == "." else f"{below}/{name}" for name in files)


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path


def _stem(name: str) -> str:
    """A name or pattern without the ending of an image."""
    stem, _, ending = name.rpartition(".")
    return stem if f".{ending}".lower() in IMAGE_ENDINGS else name


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern, folder by folder; "**/" before it stands for any folders."""
    names, patterns = path.split("/"), pattern.split("/")
    if patterns[0] == "**":
        patterns = patterns[1:]
        names = names[-len(patterns) :]
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
