"""What labels that people hold say of themselves: classes, colors and names of files, by format.

Formats are told by what lies in a folder of masks or beside it:

- ``_classes.csv`` (Roboflow), ``labelmap.csv``, ``class_dict.csv``: a table of classes;
- ``labelmap.txt`` (CVAT "Segmentation mask"), ``label_colors.txt`` (CamVid, CVAT's Cityscapes);
- ``dataset_meta.json`` (Datumaro), ``classes.txt`` or ``class_names.txt``: a name on each line;
- ``SegmentationClass`` without one of these: Pascal VOC, with its classes;
- ``*_gtFine_polygons.json`` or ``*_labelIds``: Cityscapes;
- JSON of COCO (:mod:`pppc.data.formats.coco`) or Label Studio (:mod:`pppc.data.formats.label_studio`).
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from ...errors import InputError
from ..listing import files_below
from ..train_ids import LABEL_SPACES
from .cityscapes_polygons import draw_polygons
from .coco import coco_objects, coco_panoptic
from .drawing import CONVERT, Annotations, Drawing
from .label_studio import label_studio, label_studio_strokes

Color = tuple[int, int, int]
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class LabelFormat:
    """What labels say of themselves.

    Attributes:
        name: of the format, for messages.
        file: that says it.
        classes: names by the number in the labels; {}: nothing says.
        colors: RGB, 0 to 255, by number.
        void: numbers that are ignored.
        guessed: the classes are those that the format's first data set had.
        drawings: how labels are drawn, by the image's name as the annotations have it; None: the masks
            are images.
        endings: of the masks' names, of which the first that is there is taken; (): all masks.
    """

    name: str
    file: Path
    classes: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, Color] = field(default_factory=dict)
    void: frozenset[int] = frozenset()
    guessed: bool = False
    drawings: Mapping[str, Drawing] | None = None
    endings: tuple[str, ...] = ()


def recognize(path: Path, splits: Sequence[str] = ()) -> LabelFormat | None:
    """The format of labels, or None where nothing tells.

    Args:
        path: a folder of masks, a folder of annotations, or a file of annotations.
        splits: of several files of annotations those with the first of these in their names.

    Raises:
        InputError: a file that tells is damaged; the message names it.
    """
    if path.is_file():
        return _of_annotations(path)
    # COCO's panoptic masks lie in a folder that is named as their file.
    if (file := path.with_name(f"{path.name}.json")).is_file():
        return _of_annotations(file)
    if strokes := label_studio_strokes(path):
        return LabelFormat("Label Studio PNG", path, strokes.classes, drawings=strokes.drawings)
    if (found := read_table(path) or read_table(path.parent)) is not None:
        return replace(found, endings=found.endings or _cityscapes_endings(path))
    if path.name.startswith("SegmentationClass") or (path.parent / "ImageSets").is_dir():
        return LabelFormat(
            "Pascal VOC", path, dict(enumerate(VOC_CLASSES)), dict(enumerate(voc_colors())),
            frozenset({255}), guessed=True,
        )  # fmt: skip
    if endings := _cityscapes_endings(path):
        return _cityscapes(path, endings)
    jsons = sorted(path.glob("*.json"))
    for split in splits:
        if named := [file for file in jsons if split in file.stem]:
            jsons = named
            break
    if len(jsons) > 1:
        shown = ", ".join(file.name for file in jsons)
        raise InputError(f"{path} holds several files of annotations ({shown}): name one as masks")
    return _of_annotations(jsons[0]) if jsons else None


def read_table(folder: Path) -> LabelFormat | None:
    """The classes that a file in a folder names; None: there is no such file."""
    for name, (kind, read) in TABLES.items():
        if (file := folder / name).is_file():
            endings = ("_mask",) if name == "_classes.csv" else ()
            return replace(_read(file, kind, read), endings=endings)
    return None


def _of_annotations(path: Path) -> LabelFormat:
    try:
        status = path.stat()
        found = _annotations(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no whole file of annotations ({error!r})") from error
    return LabelFormat(found.format, path, found.classes, found.colors, found.void,
                       drawings=found.drawings)  # fmt: skip


@lru_cache(maxsize=8)
def _annotations(path: Path, *_: int) -> Annotations:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return label_studio(path, content)
    if (
        not isinstance(content, dict)
        or not {"images", "annotations", "categories"} <= content.keys()
    ):
        raise InputError(f"{path}: is neither COCO's nor Label Studio's JSON. {CONVERT}")
    if any("segments_info" in annotation for annotation in content["annotations"]):
        return coco_panoptic(path, content)
    return coco_objects(path, content)


def _read(file: Path, kind: str, read: Callable[[str], tuple[dict, dict]]) -> LabelFormat:
    try:
        classes, colors = read(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: is no table of classes as of {kind} ({error})") from error
    if not classes:
        raise InputError(f"{file}: names no class")
    if wrong := [c for c in colors.values() if len(c) != 3 or not all(0 <= v <= 255 for v in c)]:
        raise InputError(f"{file}: {wrong[0]} is no color: three numbers from 0 to 255")
    return LabelFormat(kind, file, classes, colors)


def _csv(text: str) -> tuple[dict[int, str], dict[int, Color]]:
    """Rows "name, r, g, b", whose number is the row's, or "Pixel Value, Class"."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if any(row)]
    header = [cell.lower() for cell in rows[0]]
    if header[:2] == ["pixel value", "class"]:
        return {int(row[0]): row[1] for row in rows[1:]}, {}
    if header[0] in ("name", "class", "label") and len(header) == 4:
        rows = rows[1:]
    elif not all(len(row) == 4 and row[1].isdigit() for row in rows):
        raise ValueError(f"its first line is {', '.join(rows[0])}")
    return (
        {number: row[0] for number, row in enumerate(rows)},
        {number: _color(row[1:4]) for number, row in enumerate(rows)},
    )


def _color(values: list) -> Color:
    red, green, blue = map(int, values)
    return red, green, blue


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]


def _labelmap(text: str) -> tuple[dict[int, str], dict[int, Color]]:
    """Lines "name:r,g,b:parts:actions"; masks of one channel hold the number of the line."""
    rows = [line.split(":") for line in _lines(text)]
    if short := [row for row in rows if len(row) < 2]:
        raise ValueError(f"the line {short[0][0]!r} has no color")
    given = voc_colors()
    return (
        {number: row[0].strip() for number, row in enumerate(rows)},
        {
            n: _color(row[1].split(",")) if row[1].strip() else given[n]
            for n, row in enumerate(rows)
        },
    )


def _label_colors(text: str) -> tuple[dict[int, str], dict[int, Color]]:
    """Lines "r g b name"."""
    rows = [line.split(None, 3) for line in _lines(text)]
    return (
        {number: row[3].strip() for number, row in enumerate(rows)},
        {number: _color(row[:3]) for number, row in enumerate(rows)},
    )


def _names(text: str) -> tuple[dict[int, str], dict[int, Color]]:
    """A name on each line; labelme's first, __ignore__, has no number."""
    names = _lines(text)
    start = -1 if names[0] == "__ignore__" else 0
    return {n: name.strip("_") for n, name in enumerate(names, start) if n >= 0}, {}


def _datumaro(text: str) -> tuple[dict[int, str], dict[int, Color]]:
    content = json.loads(text)
    names = content.get("label_map") or dict(enumerate(content["labels"]))
    classes = {int(number): str(name) for number, name in names.items()}
    colors = content.get("segmentation_colors") or []
    return classes, {number: _color(color) for number, color in zip(sorted(classes), colors)}


TABLES: dict[str, tuple[str, Callable[[str], tuple[dict, dict]]]] = {
    "_classes.csv": ("Roboflow", _csv),
    "labelmap.txt": ("CVAT segmentation mask", _labelmap),
    "dataset_meta.json": ("Datumaro", _datumaro),
    "labelmap.csv": ("labelmap.csv", _csv),
    "class_dict.csv": ("class_dict.csv", _csv),
    "class_dict_seg.csv": ("class_dict_seg.csv", _csv),
    "label_colors.txt": ("label_colors.txt", _label_colors),
    "class_names.txt": ("class_names.txt", _names),
    "classes.txt": ("classes.txt", _names),
}


def voc_colors() -> list[Color]:
    """Pascal VOC's color of each number: its bits, three by three, from the highest bit of a channel on."""
    return [
        tuple(  # type: ignore[misc]
            sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))
            for channel in range(3)
        )
        for number in range(256)
    ]


CITYSCAPES_ENDINGS = ("_labelIds", "_polygons", "_labelTrainIds")


def _cityscapes_endings(path: Path) -> tuple[str, ...]:
    """The endings of names that a folder of Cityscapes' labels has, of which one is enough."""
    names = {re.sub(r"\.\w+$", "", name) for name in files_below(path)}
    return tuple(e for e in CITYSCAPES_ENDINGS if any(name.endswith(e) for name in names))[:1]


def _cityscapes(path: Path, endings: tuple[str, ...]) -> LabelFormat:
    space = LABEL_SPACES["cityscapes"]
    if endings == ("_labelTrainIds",):
        classes, void = dict(enumerate(space.class_names)), frozenset({255})
    else:
        classes = {i: space.class_names[train_id] for i, train_id in space.id_to_train_id.items()}
        void = space.void_ids
    colors = {i: space.colors[space.class_names.index(name)] for i, name in classes.items()}
    drawings = _polygons(path) if endings == ("_polygons",) else None
    return LabelFormat(
        "Cityscapes", path, classes, colors, void, drawings=drawings, endings=endings
    )


def _polygons(folder: Path) -> dict[str, Drawing]:
    """Cityscapes' polygon files below a folder, by their paths without "_polygons.json"."""
    return {
        name.removesuffix("_polygons.json"): Drawing(partial(draw_polygons, str(folder / name)),
                                                     (str(folder / name),))
        for name in files_below(folder)
        if name.endswith("_polygons.json")
    }  # fmt: skip


def names_in_split(
    masks: Path, split: str | None, usual: Sequence[str], place: str
) -> set[str] | None:
    """The images' names in a list of Pascal VOC or CVAT (``ImageSets/Segmentation/train.txt``).

    Args:
        masks: the folder of masks, beside which ImageSets lies.
        split: of the list; None: the first of the usual ones that is there, or the only one.
        usual: names of lists.
        place: for messages.

    Returns:
        Names without endings; None where there are no lists.

    Raises:
        InputError: there is no such list among them, or which one is meant is open.
    """
    folder = masks.parent / "ImageSets" / "Segmentation"
    lists = {path.stem: path for path in sorted(folder.glob("*.txt"))} if folder.is_dir() else {}
    if not lists:
        return None
    wanted = split or next((name for name in (*usual, *lists) if name in lists), "")
    if wanted not in lists or (not split and len(lists) > 1 and wanted not in usual):
        raise InputError(
            f"{place} is {split!r}: give one of the lists in {folder}: {', '.join(lists)}"
        )
    lines = _lines(lists[wanted].read_text("utf-8-sig"))
    return {name for line in lines for name in _names_in_line(line)}


def _names_in_line(line: str) -> Iterator[str]:
    """A name; or of lists that name image and mask, or a number after the name, the first word, too."""
    for name in (line, line.split()[0]):
        yield re.sub(
            r"\.(png|jpe?g|bmp|tiff?)$", "", name.strip('"').lstrip("/"), flags=re.IGNORECASE
        )
