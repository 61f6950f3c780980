"""The keys of a data file that say what labels mean, as the user writes them."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from PIL import ImageColor

from ...errors import InputError

Color = tuple[int, int, int]
LABEL_KEYS = ("names", "label_mapping", "ignore_index", "reduce_zero_label", "colors")
IGNORE, OTHER = "ignore", "other"  # words of label_mapping
HIGHEST = 2**16 - 1  # number in a mask


@dataclass(frozen=True)
class LabelKeys:
    """The keys of a data file, or of one of its sections, that say what labels mean.

    Attributes:
        place: in the file, for messages.
        names: by the number in masks.
        mapping: what numbers, colors or names of a format become: a number of ``names``, a name, or None
            for what is ignored.
        other: whether what ``mapping`` does not list is ignored.
        ignored: numbers in masks that are ignored; None: 255, or 65535 where there are numbers above 255,
            where it is no class.
        reduce_zero: 0 is ignored, and the others are one more than their numbers in ``names``.
        colors: RGB of classes, by number or name.
    """

    place: str
    names: Mapping[int, str] | None = None
    mapping: Mapping[int | str | Color, int | str | None] | None = None
    other: bool = False
    ignored: frozenset[int] | None = None
    reduce_zero: bool = False
    colors: Mapping[int | str, Color] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Those of the names that are not ignored."""
        ignored = self.ignored or frozenset()
        return [name for number, name in (self.names or {}).items() if number not in ignored]

    @property
    def are_wide(self) -> bool:
        """Whether a number is listed that 8 bits can't hold."""
        numbers = (*(self.names or ()), *(self.mapping or ()), *(self.ignored or ()))
        return any(isinstance(number, int) and number > 255 for number in numbers)

    @classmethod
    def read(cls, content: Mapping, place: str, above: Self | None = None) -> Self:
        """The keys of a section, those that it has not as in the section above.

        Raises:
            InputError: a value is none that its key can have; the message says where.
        """
        keys = cls(place) if above is None else replace(above, place=place)
        if "names" in content:
            # Names of its own are of numbers of its own.
            keys = replace(keys, names=_names(content["names"], f"{place}.names"), mapping=None,
                           colors={}, other=False)  # fmt: skip
        if "ignore_index" in content:
            keys = replace(keys, ignored=_ignored(content["ignore_index"], f"{place}.ignore_index"))
        if "reduce_zero_label" in content:
            if not isinstance(content["reduce_zero_label"], bool):
                raise InputError(f"{place}.reduce_zero_label: give true or false")
            keys = replace(keys, reduce_zero=content["reduce_zero_label"])
        if "colors" in content:
            colors = _mapping(content["colors"], f"{place}.colors", "{0: [128, 64, 128]}")
            if isinstance(content["colors"], list):
                colors = dict(enumerate(content["colors"]))
            keys = replace(keys, colors={
                k: _color(v, f"{place}.colors, of {k}") for k, v in colors.items()
            })  # fmt: skip
        if "label_mapping" in content:
            mapping = dict(
                _mapping(content["label_mapping"], f"{place}.label_mapping", "{7: 0, 8: 1}")
            )
            where = f"{place}.label_mapping"
            other = mapping.pop(OTHER, None)
            if other not in (None, IGNORE, *(keys.ignored or {255})):
                raise InputError(f"{where}.{OTHER} is {other!r}: it can be {IGNORE}")
            listed: dict[int | str | Color, int | str | None] = {}
            for key, value in mapping.items():
                listed |= dict.fromkeys(
                    _keys(key, where), _value(value, f"{where}, of {key}", keys)
                )
            keys = replace(keys, mapping=listed, other=other is not None)
        return keys


def _mapping(value: object, place: str, example: str) -> Mapping:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{place} is {value!r}: give a list like {example}")
    return value


def _names(value: object, place: str) -> dict[int, str]:
    names = dict(_mapping(value, place, "{0: road, 1: car}"))
    for number, name in names.items():
        if not _is_id(number):
            raise InputError(f"{place}: {number!r} is no number of a class: give 0 to {HIGHEST}")
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{place}, of {number}: {name!r} is no name: write it in quotes")
    if several := [name for name in names.values() if [*names.values()].count(name) > 1]:
        raise InputError(
            f"{place}: {several[0]!r} stands twice: give it once, and label_mapping for its numbers"
        )
    return names


def _ignored(value: object, place: str) -> frozenset[int]:
    values = value if isinstance(value, list) else [value]
    if not all(_is_id(i) for i in values):
        raise InputError(
            f"{place} is {value!r}: give a number from 0 to {HIGHEST}, or a list of them"
        )
    return frozenset(values)


def _is_id(value: object, highest: int = HIGHEST) -> bool:
    return type(value) is int and 0 <= value <= highest


def _color(value: object, place: str) -> Color:
    if isinstance(value, str):
        numbers = re.findall(r"\d+", value) if "#" not in value else []
        try:
            value = list(map(int, numbers)) if numbers else list(ImageColor.getrgb(value))
        except ValueError:
            value = [value]
    if not isinstance(value, list) or len(value) != 3 or not all(_is_id(i, 255) for i in value):
        raise InputError(f"{place}: {value!r} is no color: give three numbers from 0 to 255")
    return value[0], value[1], value[2]


def _keys(key: object, place: str) -> Sequence[int | str | Color]:
    """A number, several ("24000-24999"), a color ("128,64,128", "#804080"), or a name of the format's."""
    if _is_id(key):
        return [key]  # type: ignore[list-item]
    if isinstance(key, str) and (ends := re.fullmatch(r"(\d+)\s*-\s*(\d+)", key)):
        first, last = map(int, ends.groups())
        if first <= last <= HIGHEST:
            return range(first, last + 1)
    if isinstance(key, str) and (
        key.startswith("#") or re.fullmatch(r"[(\[]?\s*\d+[\s,]+\d+[\s,]+\d+\s*[)\]]?", key)
    ):
        return [_color(key, place)]
    if not isinstance(key, str) or re.fullmatch(r"-?\d+(\s*-\s*\d+)?", key):
        raise InputError(
            f"{place}: {key!r} is no label: give a number from 0 to {HIGHEST}, several such as "
            "'24000-24999', a color such as '128,64,128', or a class's name"
        )
    return [key]


def _value(value: object, place: str, keys: LabelKeys) -> int | str | None:
    """What a label becomes: a number or name of a class, or None."""
    ignored = keys.ignored or {255}
    if value == IGNORE or (value in ignored and value not in (keys.names or {})):
        return None
    if isinstance(value, str):
        return value
    if _is_id(value) and value in (keys.names or {}):
        return value  # type: ignore[return-value]
    known = ", ".join(f"{number} ({name})" for number, name in (keys.names or {}).items())
    raise InputError(
        f"{place}: {value!r} is no class: give one of {known or 'the names'}, or {IGNORE}"
    )


def refuse_unknown(content: Mapping, known: Sequence[str], place: str) -> None:
    """Raises InputError for a key that a section can't have."""
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            meant = f", did you mean {near[0]}?" if near else f": it can be {', '.join(known)}"
            raise InputError(f"{place}: there is no key {key!r}{meant}")
