"""The sections of a data file (source, target, val), as the user writes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from ...files import user_path
from .label_keys import LABEL_KEYS, refuse_unknown

SECTION_KEYS = ("images", "masks", "split", "weight")


@dataclass(frozen=True)
class Section:
    """A section as the user wrote it.

    Attributes:
        place: of it, for messages.
        role: "source", "target" or "val".
        images: a folder, a pattern, a file's name, or a list of them.
        masks: likewise, a template or a file of annotations; None: beside the images.
        split: a list of names or the folder that is meant.
        weight: how often its images are drawn, beside other sections.
        whole: it is a folder's name alone, to be looked through.
        keys: what its labels mean (:class:`pppc.data.data_file.label_keys.LabelKeys`).
    """

    place: str
    role: str
    images: str | list[str]
    masks: str | list[str] | None = None
    split: str | None = None
    weight: float | None = None
    whole: bool = False
    keys: Mapping = field(default_factory=dict)


def read_sections(content: Mapping, role: str, place: str) -> list[Section]:
    """The sections of a role: one, a list of them, or none.

    Raises:
        InputError: a key is unknown, or its value is none that it can have.
    """
    value = content.get(role)
    several = value if isinstance(value, list) else [value] if value is not None else []
    sections = []
    for number, one in enumerate(several):
        where = f"{place}: {role}[{number}]" if isinstance(value, list) else f"{place}: {role}"
        if isinstance(one, str):
            sections.append(Section(where, role, _expanded(one, where), whole=True))
            continue
        if not isinstance(one, Mapping):
            raise InputError(
                f"{where} is {one!r}: give a folder, or images: FOLDER and masks: FOLDER"
            )
        if role == "target" and "masks" in one:
            raise InputError(
                f"{where}.masks: a target has images alone, no label of it is opened. Labels to evaluate on "
                "belong to val; or source and target are swapped"
            )
        known = (*SECTION_KEYS, *(LABEL_KEYS if role != "target" else ()))
        refuse_unknown(one, [key for key in known if key != "masks" or role != "target"], where)
        if "images" not in one:
            raise InputError(f"{where}: has no images: give images: FOLDER")
        for key in ("images", "masks"):
            names = one.get(key, "")
            if not all(isinstance(n, str) for n in (names if isinstance(names, list) else [names])):
                raise InputError(
                    f"{where}.{key} is {names!r}: give a folder, a pattern or a list of them"
                )
        split, weight = one.get("split"), one.get("weight")
        if split is not None and not isinstance(split, str):
            raise InputError(f"{where}.split is {split!r}: give a name, such as train")
        if weight is not None and (
            type(weight) not in (int, float) or not 0 < weight < float("inf")
        ):
            raise InputError(f"{where}.weight is {weight!r}: give a number above 0")
        paths = {key: _expanded(one.get(key), f"{where}.{key}") for key in ("images", "masks")}
        keys = {key: one[key] for key in LABEL_KEYS if key in one}
        sections.append(Section(where, role, **paths, split=split, weight=weight, keys=keys))
    weighted = [section for section in sections if section.weight is not None]
    if weighted and len(weighted) < len(sections):
        raise InputError(f"{place}: {role}: give each of its {len(sections)} a weight, or none")
    return sections


def _expanded(named: Any, place: str) -> Any:
    """Names of files, with ~ and variables at their beginning expanded."""
    if isinstance(named, list):
        return [_expanded(name, place) for name in named]
    return user_path(named, place) if named and named.startswith(("~", "$")) else named
