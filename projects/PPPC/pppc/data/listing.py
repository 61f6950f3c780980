"""Which files a split consists of, and which files of its folders it leaves out.

An image is known by its path below the split's folder, without the ending; a label belongs to the
image of the same path.
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..files import user_path
from .splits import Split

# In any case; by the ending that a pattern may have for each.
_ENDINGS = {
    ".png": ".png", ".jpg": ".jpg", ".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tif": ".tif",
    ".tiff": ".tif", ".bmp": ".bmp", ".dib": ".bmp", ".gif": ".gif", ".webp": ".webp",
    ".pbm": ".pbm", ".pgm": ".pgm", ".ppm": ".ppm", ".pnm": ".pnm", ".tga": ".tga",
}  # fmt: skip
IMAGE_ENDINGS = tuple(_ENDINGS)
LABEL_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".pbm", ".pgm", ".ppm", ".pnm")
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
    if unusable := [path for i in sorted(split.unusable & images.keys()) for path in images.pop(i)]:
        listing.left_out["known to be unusable"] = unusable
    if not images:
        left_out = listing.describe_left_out()
        raise InputError(
            f"{name}: no image {' or '.join(split.image_patterns)} in {root / split.image_folder}"
            f"{f', but {left_out}' if left_out else ''}. {split.hint}"
        )
    _refuse_several(name, "image", images)
    start = _start(root / split.image_folder)
    listing.records = [
        {"file_name": start + found[0], "image_id": image_id}
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
        image = image_id + _parts(split.image_suffix)[0]
        belongs = any(_fits(image, _parts(pattern)[0]) for pattern in split.image_patterns)
        if belongs and image_id not in images and image_id not in split.unusable:
            listing.left_out.setdefault(SPARE_LABELS, []).extend(found)
    missing = [record for record in listing.records if record["image_id"] not in labels]
    if missing:
        ending = "" if _parts(split.label_suffix)[1] else ".png"
        expected = [record["image_id"] + split.label_suffix + ending for record in missing]
        spare = listing.left_out.get(SPARE_LABELS, [])
        raise InputError(
            f"{name}: {len(missing)} of {len(images)} images have no label in "
            f"{folder} ({_some(expected)})"
            f"{f', and {len(spare)} labels no image ({_some(spare)})' if spare else ''}. "
            f"{split.hint}"
        )
    _refuse_several(name, "label", {image_id: labels[image_id] for image_id in sorted(images)})
    start = _start(folder)
    for record in listing.records:
        record["sem_seg_file_name"] = start + labels[record["image_id"]][0]


def _add_day_images(
    listing: Listing, folder: Path, day_folder: Path, name: str, split: Split
) -> None:
    """Add to each night image the "day_file_name" that the folder's CSV files name for it."""
    day_images = _by_id(day_folder, split, split.image_suffix)
    known = {record["image_id"] for record in listing.records}
    day_of: dict[str, str] = {}
    for path in sorted(files_below(folder)):
        if is_hidden(path) or not path.lower().endswith(".csv"):
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
    """The files below a folder that have a split's names, by the image ID, which ``suffix`` follows.

    ``listing`` of images takes what is left out; labels and day images have no patterns.
    """
    found: dict[str, list[str]] = {}
    together = split.label_folder == split.image_folder
    other_suffix = split.image_suffix if listing is None else split.label_suffix
    for path in files_below(folder):
        stem, ending = _parts(path)
        image_id = _image_id(path, suffix)
        if is_hidden(path):
            reason = "hidden"
        elif not ending:
            reason = f"without an ending of images ({', '.join(IMAGE_ENDINGS)})"
        elif image_id is None or (
            listing is not None
            and not any(_matches(path, pattern) for pattern in split.image_patterns)
        ):
            reason = f"not named as {' or '.join(split.image_patterns)}"
        elif together and _belongs_to_other(path, suffix, other_suffix):
            reason = f"named as {'images' if listing is None else 'labels'}"
        else:
            found.setdefault(image_id, []).append(path)
            continue
        if listing is not None:
            listing.left_out.setdefault(reason, []).append(path)
    return found


def _image_id(path: str, suffix: str) -> str | None:
    """A path without the suffix and the ending; None: it has not the suffix."""
    (stem, ending), (end, suffix_ending) = _parts(path), _parts(suffix)
    if not stem.endswith(end) or suffix_ending not in ("", ending):
        return None
    return stem.removesuffix(end)


def _belongs_to_other(path: str, suffix: str, other: str) -> bool:
    """Whether the other suffix says more of a path that may have both."""
    if _image_id(path, other) is None:
        return False
    (end, ending), (other_end, other_ending) = _parts(suffix), _parts(other)
    return (len(other_end), bool(other_ending)) > (len(end), bool(ending))


def _refuse_several(name: str, kind: str, found: dict[str, list[str]]) -> None:
    """Raises InputError where files differ in their ending alone: which one is meant?"""
    if several := [" and ".join(paths) for paths in found.values() if len(paths) > 1]:
        raise InputError(
            f"{name}: {len(several)} images have more than one {kind} file ({_some(several)}): "
            "keep one of each"
        )


def files_below(folder: Path) -> Iterator[str]:
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
        folders.sort()
        below = os.path.relpath(path, folder)
        yield from (name if below == "." else f"{below}/{name}" for name in sorted(files))


def _start(folder: Path) -> str:
    """What comes before a name in the path of a folder's file; joining paths takes ten times as long."""
    return str(folder / "x")[:-1]


def is_hidden(path: str) -> bool:
    """Whether a relative path has a part that starts with a point."""
    return path.startswith(".") or "/." in path


@lru_cache(maxsize=256)  # of a suffix or pattern it is asked for each file
def _parts(name: str) -> tuple[str, str]:
    """A name or pattern without the ending of an image, and the kind of the ending, "" for none.

    Examples:
        >>> _parts("street.JPEG"), _parts("*_rgb")
        (('street', '.jpg'), ('*_rgb', ''))
    """
    stem, _, ending = name.rpartition(".")
    kind = _ENDINGS.get(f".{ending}".lower(), "")
    return (stem if kind else name), kind


def _matches(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern, folder by folder; "**/" before it stands for any folders.

    A pattern without the ending of an image may also leave the path's out.
    """
    (stem, ending), (pattern_stem, pattern_ending) = _parts(path), _parts(pattern)
    if pattern_ending:
        return ending == pattern_ending and _fits(stem, pattern_stem)
    return _fits(stem, pattern) or _fits(path, pattern)


def _fits(path: str, pattern: str) -> bool:
    names, patterns = path.split("/"), pattern.split("/")
    if patterns[0] == "**":
        patterns = patterns[1:]
        names = names[-len(patterns) :]
    return len(names) == len(patterns) and all(map(fnmatchcase, names, patterns))


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
