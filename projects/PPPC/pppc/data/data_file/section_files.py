"""The images that a section of a data file names, and their labels."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from ...errors import InputError
from ..formats.drawing import Drawing
from ..formats.recognition import LabelFormat, names_in_split, read_table, recognize
from ..listing import IMAGE_ENDINGS, LABEL_ENDINGS, SPARE_LABELS
from .pairing import (
    Files,
    find_files,
    has_few_colors,
    masks_by_template,
    masks_of,
    some,
    without_masks,
)
from .sections import Section

# Names of folders, in any case, for a section that names the folder above.
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "data", "rgb")
MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gtfine", "gt", "ground_truth",
    "1st_manual", "2nd_manual", "manual1", "manual",
)  # fmt: skip
VOC_MASKS = "segmentationclass"  # beside boxes in Annotations
SPLITS = {
    "source": ("train", "trainval", "training", "default"),
    "val": ("val", "valid", "validation", "test", "testing"),
}
# Label Studio writes eight digits before the names of uploaded files.
UPLOADED = re.compile(r"(^|/)[0-9a-f]{8}-")
SHOWN = 3  # files whose headers are looked at


@dataclass
class SectionFiles:
    """The images of a section, by what they are known by, and their labels.

    Attributes:
        images: files.
        masks: files; {} where labels are drawn, or there are none.
        drawings: how labels are drawn.
        labels: what the labels say of themselves.
        left_out: what was not taken, by the reason.
        unused_masks: of a target, where masks lie that would be its labels; None: none were seen.
    """

    images: Files
    masks: Files = field(default_factory=dict)
    drawings: dict[str, Drawing] = field(default_factory=dict)
    labels: LabelFormat | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unused_masks: Path | None = None


def find_section(
    base: Path, section: Section, targets: Sequence[SectionFiles] = ()
) -> SectionFiles:
    """The files of a section.

    Args:
        base: what relative paths start from.
        section: as the user wrote it.
        targets: the target's, to tell a swap.

    Raises:
        InputError: files are missing, or can't be told apart or paired.
    """
    named, section = section, _laid_out(base, section)
    files = find_files(base, section.images, f"{section.place}.images")
    try:
        images, beside = without_masks(files)
    except InputError as error:
        raise InputError(f"{section.place}.images: {error}") from error
    found = SectionFiles(images)
    for suffix, masks in beside.items():
        found.left_out[_beside(suffix)] = [str(mask) for mask in masks.values()]
    if section.role == "target":
        _refuse_masks(section, list(images.values()))
        found.unused_masks = _masks_of_target(base, named, beside)
        return found
    template = section.masks if isinstance(section.masks, str) and "{" in section.masks else None
    if template:
        found.masks = masks_by_template(base, images, template, f"{section.place}.masks")
        found.labels = read_table(next(iter(found.masks.values())).parent)
    elif section.masks is None or _same_place(base, section):
        _take_masks_beside(section, found, beside, targets)
    else:
        _take_masks(base, section, found, targets)
    if found.masks:
        _refuse_swapped(section, found)
    return found


def _laid_out(base: Path, section: Section) -> Section:
    """A section with the folders of images and masks below, or beside, the one that it names."""
    if not isinstance(section.images, str) or not (folder := base / section.images).is_dir():
        return section
    splits = _splits(section)
    images = _below(folder, IMAGE_FOLDERS)
    masks = section.masks
    if masks is None and section.role != "target":
        if (beside := _masks_below(section, _above(folder, images))) is not None:
            masks = str(_below(beside, splits))
    elif isinstance(masks, str) and (base / masks).is_dir():
        masks = str(_below(base / masks, splits))
    return replace(section, images=str(_below(images, splits)), masks=masks)


def _above(folder: Path, images: Path) -> Path:
    """Where a folder of masks may lie: beside that of the images, or in the one that holds them."""
    return images.parent if images != folder or folder.name.lower() in IMAGE_FOLDERS else folder


def _masks_of_target(base: Path, section: Section, beside: Mapping[str, Files]) -> Path | None:
    """Where masks lie that would be the target's labels; they are not opened."""
    for masks in beside.values():
        return next(iter(masks.values()))
    if not isinstance(section.images, str) or not (folder := base / section.images).is_dir():
        return None
    try:
        return _masks_below(section, _above(folder, _below(folder, IMAGE_FOLDERS)))
    except InputError:  # there are several
        return folder


def _splits(section: Section) -> Sequence[str]:
    """The folders, or files of annotations, of which one is meant."""
    if section.split is not None:
        return (section.split,)
    return SPLITS.get(section.role, ()) if section.whole else ()


def _below(folder: Path, names: Sequence[str]) -> Path:
    """The first of some folders that is in ``folder``, or that itself; names are in any case."""
    inside = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((inside[name.lower()] for name in names if name.lower() in inside), folder)


def _masks_below(section: Section, folder: Path) -> Path | None:
    """The folder in ``folder`` that holds masks by its name; raises InputError where several may."""
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    found = [name for name in names if name.lower() == VOC_MASKS]
    found = found or [name for name in names if name.lower() in MASK_FOLDERS]
    if len(found) > 1:
        raise InputError(
            f"{section.place}: {', '.join(found)} may hold the masks: give masks: FOLDER"
        )
    return folder / found[0] if found else None


def _same_place(base: Path, section: Section) -> bool:
    images, masks = section.images, section.masks
    if not isinstance(images, str) or not isinstance(masks, str):
        return False
    return os.path.realpath(base / images) == os.path.realpath(base / masks)


def _take_masks_beside(
    section: Section,
    found: SectionFiles,
    beside: Mapping[str, Files],
    targets: Sequence[SectionFiles],
) -> None:
    whole = {suffix: masks for suffix, masks in beside.items() if len(masks) == len(found.images)}
    kinds = whole or beside
    if not kinds:
        text = f"{section.place}: there are no masks beside the images, and masks names no other folder"
        if unused := [target.unused_masks for target in targets if target.unused_masks]:
            text += f", while the target has some ({unused[0]}): are source and target swapped? Otherwise"
        raise InputError(f"{text}: give masks: FOLDER. Images without labels can be a target")
    if len(kinds) > 1:
        shown = ", ".join(f"'{{stem}}{suffix}.png'" for suffix in sorted(kinds))
        raise InputError(
            f"{section.place}: there are masks of several kinds: give masks: one of {shown}"
        )
    ((suffix, found.masks),) = kinds.items()
    found.left_out.pop(_beside(suffix))
    _require_all(section, found, ())
    found.labels = read_table(next(iter(found.images.values())).parent)


def _beside(suffix: str) -> str:
    return f"masks of other images by their names (...{suffix or '.png'})"


def _take_masks(
    base: Path, section: Section, found: SectionFiles, targets: Sequence[SectionFiles]
) -> None:
    named, place = section.masks or "", f"{section.place}.masks"
    folder = base / named if isinstance(named, str) else None
    if folder is not None and folder.exists():
        found.labels = recognize(folder, _splits(section))
    if found.labels is not None and found.labels.drawings is not None:
        _take_drawings(found, found.labels, place)
        return
    files = find_files(base, named, place)
    ends = found.labels.endings if found.labels else ()
    masks = {}
    for known, same in files.items():
        same = [f for f in same if f.suffix.lower() in LABEL_ENDINGS] or same
        if len(same) > 1:
            raise InputError(
                f"{place}: {' and '.join(map(str, same))}: keep one mask of each image"
            )
        if not ends or known.endswith(ends):
            masks[known] = same[0]
    pairs = masks_of(found.images, masks, place)
    of_target = [name for target in targets for name in target.images]
    if len(pairs) < len(found.images) and len(masks_of(of_target, masks, place)) > len(pairs):
        raise InputError(
            f"{place}: these are masks of the target's images: are source and target swapped?"
        )
    found.masks = {image: masks[mask] for image, mask in pairs.items()}
    if folder is not None and folder.is_dir():
        _keep_split(section, folder, found)
    spare = [str(masks[mask]) for mask in masks.keys() - pairs.values()]
    _require_all(section, found, spare)
    if spare:
        found.left_out[SPARE_LABELS] = spare


def _take_drawings(found: SectionFiles, labels: LabelFormat, place: str) -> None:
    """Pair images with annotations; what has no other is left out, since annotations name their images."""
    drawings = labels.drawings or {}
    for names in (
        {_stem(name): name for name in drawings},
        {UPLOADED.sub(r"\1", _stem(name)): name for name in drawings},
    ):
        if pairs := masks_of(found.images, names, place):
            break
    if not pairs:
        raise InputError(
            f"{place}: none of the {len(found.images)} images ({some(found.images.values())}) is one that "
            f"{labels.file} annotates ({some(drawings)})"
        )
    found.drawings = {image: drawings[names[known]] for image, known in pairs.items()}
    for reason, files in (
        ("images without annotations", [str(f) for i, f in found.images.items() if i not in pairs]),
        ("annotations without an image", sorted(names[n] for n in names.keys() - pairs.values())),
    ):
        if files:
            found.left_out[reason] = files
    found.images = {image: file for image, file in found.images.items() if image in pairs}


def _stem(name: str) -> str:
    stem, ending = os.path.splitext(name)
    return (stem if ending.lower() in IMAGE_ENDINGS else name).lstrip("/")


def _keep_split(section: Section, folder: Path, found: SectionFiles) -> None:
    """Leave the images alone that a list of Pascal VOC names."""
    listed = names_in_split(folder, section.split, SPLITS[section.role], f"{section.place}.split")
    if listed is None:
        return
    by_name = {os.path.basename(known): known for known in found.images}
    kept = {known for name in listed for known in (name, by_name.get(os.path.basename(name)))}
    others = [str(file) for known, file in found.images.items() if known not in kept]
    if len(others) == len(found.images):
        raise InputError(f"{section.place}: no image is in the list of its split ({some(listed)})")
    if others:
        found.left_out["images of other splits"] = others
    found.images = {known: file for known, file in found.images.items() if known in kept}
    found.masks = {known: file for known, file in found.masks.items() if known in kept}


def _require_all(section: Section, found: SectionFiles, spare: Sequence[str]) -> None:
    missing = [str(file) for known, file in found.images.items() if known not in found.masks]
    if missing:
        raise InputError(
            f"{section.place}: {len(missing)} of {len(found.images)} images have no mask ({some(missing)})"
            + (f", and {len(spare)} masks no image ({some(spare)})" if spare else "")
            + ". Where masks are named otherwise, give a template, masks: 'FOLDER/{stem}_mask.png'; images "
            "that have none can be left out by images: a list or a pattern"
        )
    same = [str(f) for known, f in found.images.items() if os.path.samefile(f, found.masks[known])]
    if same:
        raise InputError(
            f"{section.place}: masks names the images themselves ({some(same)}): give the folder of masks"
        )


def _refuse_swapped(section: Section, found: SectionFiles) -> None:
    pairs = [(image, found.masks[known]) for known, image in found.images.items()][:SHOWN]
    if all(has_few_colors(image) and not has_few_colors(mask) for image, mask in pairs):
        raise InputError(
            f"{section.place}: images holds masks, and masks photographs: swap the two"
        )


def _refuse_masks(section: Section, images: Sequence[Path]) -> None:
    if all(_mode(image) in ("P", "1") for image in images[:SHOWN]):
        raise InputError(
            f"{section.place}: {images[0]} and others are masks (of a palette or one bit): give the folder "
            "of images"
        )


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""  # the readers say what is wrong with it
