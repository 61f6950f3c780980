"""Images and masks of a data file's folders: which files are what, and which belong together.

A file is known by its path below the folder or pattern that names it, without the ending.
"""

import glob
import os
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import InputError
from ..listing import IMAGE_ENDINGS, LABEL_ENDINGS, files_below, is_hidden

#: What is between an image's name and its mask's, where both lie in one folder.
MASK_WORDS = re.compile(
    r"mask|(?<!un)label|annot|manual|segm|(^|[_\W])(seg|gt|ground|truth|anno|lbl|matte|\d(st|nd|rd|th)?h[o0])",
    re.IGNORECASE,
)
FEW_COLORS = 256  # of a mask at most
SAMPLE = 50  # images, to find out how masks are named
SHOWN = 3

Files = dict[str, Path]  # by what they are known by


def find_files(
    base: Path, named: str | list[str], place: str, endings: tuple[str, ...] = IMAGE_ENDINGS
) -> dict[str, list[Path]]:
    """The files that a folder, a pattern, a file's name, a list of names (.txt), or several of those name.

    Args:
        base: what relative paths start from.
        named: as the user wrote it.
        place: of it, for messages.
        endings: of the files to take.

    Returns:
        Files by what they are known by, several where names differ in their endings alone.

    Raises:
        InputError: there is no such folder or file, or nothing in it.
    """
    names = [named] if isinstance(named, str) else named
    several, found = [_files_of(base, name, place, endings) for name in names], defaultdict(list)
    starts = {start for start, _ in several}
    if len(several) > 1 or None in starts:  # of lists, what all files have in common
        common = Path(os.path.commonpath([file.parent for _, files in several for file in files]))
        starts = {common}
    (start,) = starts
    for file in dict.fromkeys(file for _, files in several for file in files):
        path = Path(os.path.relpath(file, start))
        known = path.with_suffix("") if path.suffix.lower() in IMAGE_ENDINGS else path
        found[str(known)].append(file)
    return dict(found)


def _files_of(
    base: Path, named: str, place: str, endings: tuple[str, ...]
) -> tuple[Path | None, list[Path]]:
    """The folder that names start from, None for a list, and files of these endings."""
    path, start = base / named, None
    if path.is_dir():
        start, paths = path, [path / name for name in files_below(path) if not is_hidden(name)]
    elif glob.has_magic(named) and not path.exists():
        fixed = re.split(r"[*?\[]", str(path))[0]
        start = Path(fixed if fixed.endswith("/") else os.path.dirname(fixed))
        paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    elif path.is_file() and path.suffix.lower() == ".txt":
        paths = _listed(base, path, place)
    elif path.is_file():
        start, paths = path.parent, [path]
    else:
        raise InputError(f"{place}: there is no {path}: give a folder, a file or a pattern (*)")
    taken = [p for p in paths if p.suffix.lower() in endings and p.is_file()]
    if not taken:
        other = f", of {len(paths)} files there" if paths else ""
        raise InputError(f"{place}: no image in {path}{other}: give another folder or pattern")
    return start, taken


def _listed(base: Path, path: Path, place: str) -> list[Path]:
    files = []
    for number, line in enumerate(path.read_text("utf-8-sig", "surrogateescape").splitlines(), 1):
        if name := line.strip():
            near = [folder / name for folder in (base, path.parent) if (folder / name).is_file()]
            if not near:
                raise InputError(f"{place}: {path}, line {number}: there is no file {base / name}")
            files.append(near[0])
    return files


def without_masks(files: Mapping[str, list[Path]]) -> tuple[Files, dict[str, Files]]:
    """Of files in one place, the images, and the masks beside them, which are told by their names.

    ``a_mask.png`` is the mask of ``a.jpg``, where the word says so or it has one channel or few colors and
    the image more; so is ``a.png`` of ``a.jpg``, where it has one channel.

    Returns:
        The images; and masks by what their names have more than the images'.

    Raises:
        InputError: of several files of one name none is told to be the image.
    """
    beside: dict[str, Files] = {}
    images = {}
    for known, same in files.items():
        masks = [file for file in same if len(same) > 1 and file.suffix.lower() in LABEL_ENDINGS]
        masks = [file for file in masks if not _has_colors(file)]
        photographs = [file for file in same if file not in masks]
        if len(photographs) != 1 or len(masks) > 1:
            shown = " and ".join(map(str, same))
            raise InputError(f"several images of one name, {shown}: keep one of each")
        images[known] = photographs[0]
        if masks:
            beside.setdefault("", {})[known] = masks[0]
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for known in images:
        for end in range(len(known) - 1, 0, -1):
            if known[:end] in images and not known[end:].startswith("/"):
                by_suffix[known[end:]].append(known[:end])
                break
    for suffix, of in by_suffix.items():
        is_mask = MASK_WORDS.search(suffix) or all(
            _is_mask_of(images[known + suffix], images[known]) for known in of[:SHOWN]
        )
        if is_mask and not suffix[0].isdigit():
            beside[suffix] = {known: images[known + suffix] for known in of}
    for suffix, named in beside.items():
        for known in named if suffix else ():
            images.pop(known + suffix, None)
    return images, beside


def _is_mask_of(path: Path, image: Path) -> bool:
    """Whether a file has one channel, or few colors, and the image that its name goes on from has more."""
    if not _has_colors(image):
        return False
    return not _has_colors(path) or (has_few_colors(path) and not has_few_colors(image))


def has_few_colors(path: Path) -> bool:
    """Whether an image has no more colors than a mask can have; False where it can't be read."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # which Pillow does not count
                return np.unique(np.asarray(image)).size <= FEW_COLORS
            return image.getcolors(FEW_COLORS) is not None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _has_colors(path: Path) -> bool:
    """Whether a file's header says that it has several channels."""
    try:
        with Image.open(path) as image:
            return len(image.getbands()) > 2
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return True  # the readers say what is wrong with it


def masks_by_template(base: Path, images: Files, template: str, place: str) -> Files:
    """The masks that a template such as ``masks/{stem}_mask.png`` names.

    Args:
        base: what relative paths start from. A template without a folder is a name beside the image.
        images: by what they are known by.
        template: with {stem}, the image's name without its ending, or {path}, the same with the folders
            below the one that was named.
        place: for messages.

    Raises:
        InputError: the template has other parts, or names files that are not there.
    """
    masks, missing = {}, []
    for known, image in images.items():
        try:
            name = template.format(stem=image.stem, path=known)
        except (KeyError, ValueError, IndexError) as error:
            raise InputError(
                f"{place}: {template!r}: give {{stem}} or {{path}} between the braces"
            ) from error
        path = base / name if "/" in template else image.parent / name
        ends = ("", *LABEL_ENDINGS)
        found = next((p for end in ends if (p := Path(f"{path}{end}")).is_file()), None)
        if found is None:
            missing.append(path)
        else:
            masks[known] = found
    if missing:
        raise InputError(
            f"{place}: {len(missing)} of {len(images)} images have no mask ({some(missing)})"
        )
    return masks


def masks_of(images: Iterable[str], masks: Iterable[str], place: str) -> dict[str, str]:
    """Which mask belongs to which image, by their names.

    A name is the same, below both folders or without them, or all masks have one ending (or beginning) in
    the place of the images': ``21_training`` and ``21_manual1``.

    Args:
        images, masks: what they are known by.
        place: for messages.

    Returns:
        Masks by image; images without one are left out.

    Raises:
        InputError: masks of several kinds have the images' names.
    """
    images, masks = list(images), sorted(masks)
    best: dict[str, str] = {}
    for key in (str, os.path.basename):
        names = {key(mask): mask for mask in masks}
        if len(names) < len(masks):
            continue
        by_key = {image: key(image) for image in images}
        if len(set(by_key.values())) < len(images):
            continue
        same = {image: names[k] for image, k in by_key.items() if k in names}
        if len(same) > len(best):
            best = same
        for backwards in (False, True):
            turn = _turned if backwards else str
            found = _by_suffixes(
                {turn(k): i for i, k in by_key.items()}, {turn(k): m for k, m in names.items()}
            )
            least = max(len(best) + 1, min(len(images), len(masks)) / 2)
            found = {suffix: pairs for suffix, pairs in found.items() if len(pairs) >= least}
            most = max(map(len, found.values()), default=0)
            kinds = [suffix for suffix, pairs in found.items() if len(pairs) == most]
            if len(kinds) > 1:
                shown = [f"...{turn(end)}" for _, end in sorted(kinds)]
                raise InputError(
                    f"{place}: there are masks of several kinds ({', '.join(shown)}): say which one, such "
                    f"as masks: 'FOLDER/*{turn(sorted(kinds)[0][1])}.png'"
                )
            if kinds:
                best = found[kinds[0]]
        if len(best) == len(images):
            break
    return best


def _turned(text: str) -> str:
    return text[::-1]


def _by_suffixes(
    images: Mapping[str, str], masks: Mapping[str, str]
) -> dict[tuple[str, str], dict[str, str]]:
    """Pairs by the ends of names that differ: what images and masks are by their names."""
    order = sorted(masks)
    ends: set[tuple[str, str]] = set()
    names = list(images)
    for name in names[:: max(1, len(names) // SAMPLE)]:
        at = bisect(order, name)
        near = [
            (os.path.commonprefix([name, order[i]]), i) for i in (at - 1, at) if 0 <= i < len(order)
        ]
        start = max((prefix for prefix, _ in near), key=len, default="")
        first = bisect(order, start)
        for mask in order[max(0, first - 1) : first + 20]:
            if start and mask.startswith(start):
                ends.add((name[len(start) :], mask[len(start) :]))
    found = {}
    for end, mask_end in sorted(ends):
        found[end, mask_end] = {
            image: masks[mask]
            for name, image in images.items()
            if name.endswith(end) and (mask := name[: len(name) - len(end)] + mask_end) in masks
        }
    return found


def some(paths: Iterable[object]) -> str:
    """The first few of some paths."""
    shown = sorted(map(str, paths))
    return ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")
