"""What the masks of a data file mean: its keys, what the labels' format says, and what some masks hold."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from detectron2.utils.colormap import colormap

from ...errors import InputError
from ..formats.recognition import LabelFormat
from ..label_images import read_label_image
from ..labels import some_values, values_in
from ..train_ids import LabelSpace
from .label_keys import HIGHEST, IGNORE, Color, LabelKeys

VOID_NAMES = {"void", "ignore", "ignored", "unlabeled", "unlabelled", "border", "out of roi"}
SAMPLE = 16  # masks
BINARY = {0, 255}


class Masks(NamedTuple):
    """What some masks hold.

    Attributes:
        values: gray values and numbers of palettes, as stored.
        shown: gray values as a viewer shows them; None: there are colors that are not gray.
        colors: RGB of files of colors.
        palette: RGB of the numbers of palettes that are used.
        kinds: what the files are, of "gray", "few bits", "palette" and "colors".
    """

    values: frozenset[int] = frozenset()
    shown: frozenset[int] | None = frozenset()
    colors: frozenset[Color] = frozenset()
    palette: frozenset[Color] = frozenset()
    kinds: frozenset[str] = frozenset()


def look_at_masks(files: Sequence[Path], decided: bool, wide: bool = False) -> Masks:
    """What some of the masks hold. Those that can't be read are for others to name.

    Args:
        files: masks.
        decided: some are enough; otherwise all are looked at where the first show 0 alone.
        wide: numbers above 255 are expected.
    """
    some = files[:: max(1, len(files) // SAMPLE)]
    found = Masks()
    for file in some:
        found = _with_mask(found, file, wide)
    for file in () if decided else files:
        if found.shown is None or found.shown - {0}:
            break
        found = _with_mask(found, file, wide)
    return found


def _with_mask(found: Masks, file: Path, wide: bool) -> Masks:
    for tried in (wide, True):  # also where numbers above 255 are not expected
        try:
            image = read_label_image(str(file), tried)
            break
        except InputError:
            continue
    else:
        return found
    used = values_in(image.values)
    values, shown, colors, palette, kinds = found
    if image.colors is None:
        stored = used // image.step
        kind = "few bits" if image.step > 1 else "gray"
        return Masks(values | set(stored.tolist()),
                     None if shown is None else shown | set(used.tolist()),
                     colors, palette, kinds | {kind})  # fmt: skip
    rows: set[Color] = {tuple(row) for row in image.colors[used].tolist()}
    grays = {row[0] for row in rows if len(set(row)) == 1}
    shown = shown | grays if shown is not None and len(grays) == len(rows) else None
    if image.has_palette:
        return Masks(
            values | set(used.tolist()), shown, colors, palette | rows, kinds | {"palette"}
        )
    return Masks(values, shown, colors | rows, palette, kinds | {"colors"})


class Meaning(NamedTuple):
    """What labels mean.

    Attributes:
        space: their label space.
        numbers_are_ids: of palettes and few bits, the numbers stored count.
        remarks: what the user should know.
        unmatched: names in the file's label_mapping that are none of these labels' classes.
    """

    space: LabelSpace
    numbers_are_ids: bool
    remarks: Sequence[str] = ()
    unmatched: frozenset[str] = frozenset()


def same_name(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that is ``name`` but for case, blanks, hyphens and underscores."""
    return next((known for known in names if _plain(known) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def meaning(
    keys: LabelKeys,
    top: LabelKeys,
    labels: LabelFormat | None,
    files: Sequence[Path],
    known: Sequence[str],
) -> Meaning:
    """What the masks of a section mean.

    Args:
        keys: of the section.
        top: of the data file, whose names are the model's classes.
        labels: what the masks say of themselves.
        files: the masks; () where they are drawn from annotations.
        known: names of classes of other sections, so that all are written alike.

    Raises:
        InputError: nothing names the classes, or the keys contradict the masks.
    """
    own = keys.names if keys.names is not top.names else None
    names = dict(own or (labels.classes if labels else None) or top.names or {})
    listed = top.classes
    if labels and labels.guessed and not own and listed:
        asked = {*listed, *(key for key in keys.mapping or () if isinstance(key, str))}
        if not any(same_name(name, asked) for name in names.values()):
            names = dict(top.names or {})
            labels = replace(labels, classes={}, colors={})
    by_numbers = own is None and not (labels and labels.classes)
    two_classes = len(names) in (0, 2) and not keys.mapping and by_numbers
    wide = keys.are_wide or max(names, default=0) > 255
    masks = look_at_masks(files, not two_classes, wide)
    remarks = []
    binary = (
        two_classes and masks.shown is not None and masks.shown <= BINARY and 255 in masks.shown
    )
    if binary and not (keys.ignored and 255 in keys.ignored) and not keys.reduce_zero:
        first, second = names.values() if names else ("background", "foreground")
        names = {0: first, 255: second}
        remarks.append(f"the masks hold 0 and 255: {first} and {second}")
    else:
        binary = False
    if not names and not keys.mapping:
        raise InputError(f"{keys.place}: nothing names the classes, {_held(masks)}: give names")
    targets: dict[int, str | None] = dict(names)
    if keys.reduce_zero:
        if keys.mapping or not by_numbers:
            raise InputError(f"{keys.place}: reduce_zero_label is for names alone: leave it out")
        targets = {0: None} | {number + 1: name for number, name in names.items()}
    colors = dict(labels.colors) if labels else {}
    if keys.mapping is not None:
        if by_numbers and not all(isinstance(key, str) for key in keys.mapping):
            targets = {}  # what it does not list has no meaning
        _apply_mapping(keys, top, names, masks, targets, colors)
    targets |= dict.fromkeys((keys.ignored or frozenset()) - (keys.mapping or {}).keys())
    for number, name in targets.items():
        if name is None:
            continue
        same = same_name(name, listed or known)
        if same is None and (listed or _plain(name) in VOID_NAMES):
            if listed and _plain(name) not in VOID_NAMES:
                remarks.append(f"{name} is ignored: names does not list it")
            targets[number] = None
        else:
            targets[number] = same or name
    classes = list(dict.fromkeys(name for name in targets.values() if name is not None))
    if not classes:
        raise InputError(
            f"{keys.place}: its labels name {', '.join(names.values())}, and names lists "
            f"{', '.join(listed)}: no class is in both. Give label_mapping, such as "
            f"{{{next(iter(names.values()), 'car')}: {listed[0]}}}"
        )
    if len(classes) > 255:
        raise InputError(
            f"{keys.place}: there are {len(classes)} classes, a model has 255 at most: give names of "
            "fewer, and say what labels become by label_mapping, such as {'0-9': road, other: ignore}"
        )
    if listed:
        classes.sort(key=listed.index)
    void = {number for number, name in targets.items() if name is None}
    void |= (labels.void if labels else frozenset()) | (keys.ignored or {HIGHEST if wide else 255})
    if keys.other:
        void = set(range(HIGHEST + 1 if wide else 256))
    wanted = _wanted_colors(keys, top, classes)
    of_number = {
        number: wanted[name] for number, name in targets.items() if name in wanted
    } | colors
    by_color = any(isinstance(key, tuple) for key in keys.mapping or ())
    known_colors = set(of_number.values())
    seen = masks.colors | masks.palette
    if seen and seen <= known_colors and (masks.kinds == {"colors"} or by_color):
        # No number is to be taken for one of the colors that are gray.
        targets, void, of_number = _numbered_anew(targets, void, of_number)
    if not known_colors and any(len(set(color)) > 1 for color in masks.colors):
        raise InputError(
            f"{keys.place}: {_held(masks)}: say what they mean, by colors (of the names), or by "
            "label_mapping, such as {'128,64,128': road}"
        )
    space = _label_space(keys, targets, classes, void, of_number, wanted)
    numbers = not binary and not by_color and (
        "few bits" in masks.kinds or not masks.palette <= known_colors
    )  # fmt: skip
    unmatched = {
        k for k in top.mapping or () if isinstance(k, str) and not same_name(k, names.values())
    }
    return Meaning(space, numbers, remarks, frozenset(unmatched))


def _held(masks: Masks) -> str:
    if masks.colors:
        return f"the masks hold the colors {', '.join(map(str, sorted(masks.colors)))}"
    return f"the masks hold {some_values(sorted(masks.values)) or 'nothing that can be read'}"


def unknown_class(name: str, names: Iterable[str]) -> str:
    return f"{name!r} is no class of these labels: they have {', '.join(names)}"


def _apply_mapping(
    keys: LabelKeys,
    top: LabelKeys,
    names: Mapping[int, str],
    masks: Masks,
    targets: dict[int, str | None],
    colors: dict[int, Color],
) -> None:
    """Set what label_mapping lists in ``targets``, and colors that it lists in ``colors``."""
    place = f"{keys.place}.label_mapping"
    by_color = {color: number for number, color in colors.items()}
    grays = {key[0] for key in keys.mapping or () if isinstance(key, tuple)}
    free = (i for i in range(254, -1, -1) if i not in grays and i not in targets)
    for key, value in (keys.mapping or {}).items():
        if isinstance(value, int):
            value = (keys.names or top.names or {})[value]
        if value is not None and top.names and same_name(value, top.names.values()) is None:
            raise InputError(
                f"{place}, of {key}: {value!r} is no class: give one of "
                f"{', '.join(top.names.values())}, or {IGNORE}"
            )
        if isinstance(key, str):
            numbers = [i for i, name in names.items() if _plain(name) == _plain(key)]
            if not numbers and keys.mapping is not top.mapping:
                raise InputError(f"{place}: {unknown_class(key, names.values())}")
        elif isinstance(key, tuple) and masks.kinds <= {"gray", "few bits"} and len(set(key)) == 1:
            numbers = [key[0]]
        elif isinstance(key, tuple):
            number = by_color[key] if key in by_color else next(free)
            numbers, colors[number] = [number], key
        else:
            numbers = [key]
        targets |= dict.fromkeys(numbers, value)


def _wanted_colors(keys: LabelKeys, top: LabelKeys, classes: list[str]) -> dict[str, Color]:
    """The colors that the data file gives classes, by name."""
    wanted = {}
    for section in (top, keys):
        for key, color in section.colors.items():
            name = (section.names or {}).get(key) if isinstance(key, int) else key
            if name is None:
                raise InputError(f"{section.place}.colors: {key!r} is no number of names")
            if same := same_name(name, classes):
                wanted[same] = color
    return wanted


def _numbered_anew(
    targets: Mapping[int, str | None], void: set[int], colors: Mapping[int, Color]
) -> tuple[dict[int, str | None], set[int], dict[int, Color]]:
    """Numbers that are no gray value of a color, for labels that are known by their colors alone."""
    grays = {color[0] for color in colors.values()}
    free = (number for number in range(255) if number not in grays)
    new = {number: next(free) for number in colors if number in targets or number in void}
    return (
        {new[number]: name for number, name in targets.items() if number in new},
        {new[number] for number in void if number in new} | (void & {255} - grays),
        {new[number]: color for number, color in colors.items() if number in new},
    )


def _label_space(
    keys: LabelKeys,
    targets: Mapping[int, str | None],
    classes: list[str],
    void: set[int],
    colors: Mapping[int, Color],
    wanted: Mapping[str, Color],
) -> LabelSpace:
    """
    Args:
        colors: by number, as in the labels.
        wanted: of classes, as they are shown.
    """
    ids = {number: classes.index(name) for number, name in targets.items() if name is not None}
    shown = {classes[i]: colors[number] for number, i in ids.items() if number in colors} | dict(
        wanted
    )
    spare = (tuple(color) for color in colormap(rgb=True).astype(int).tolist())
    free = (color for color in spare if color not in shown.values())
    filled = tuple(shown[name] if name in shown else next(free, (0, 0, 0)) for name in classes)
    known = {number: color for number, color in colors.items() if number in ids or number in void}
    try:
        return LabelSpace(
            ids,
            frozenset(void - ids.keys()),
            tuple(classes),
            filled,
            id_colors=known,
            void_colors=keys.other,
        )
    except InputError as error:
        raise InputError(f"{keys.place}: {error}") from error
