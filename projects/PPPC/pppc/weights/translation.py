"""Giving the tensors of other projects' checkpoints our names, and ours theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .layouts import LAYOUTS, NOT_IN_AN_ENCODER, Layout

__all__ = ["Translation", "from_other_layout", "to_other_layout"]

STUDENT, TEACHER = "student.", "teacher."
# BatchNorm counts batches only where it has no momentum; old files lack the count.
UNUSED = ".num_batches_tracked"


@dataclass
class Translation:
    """Weights under our names, and what became of the rest.

    Attributes:
        title: what the file was recognised as.
        state: tensors by our names.
        dropped: reason by their name.
        missing: reason by our name.
    """

    title: str
    state: dict[str, Tensor]
    dropped: dict[str, str]
    missing: dict[str, str]


def _theirs(layout: Layout, student: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Their names of every tensor of the student that the layout has a place for."""
    names = {}
    for key in student:
        if (theirs := layout.rename(key)) is not None:
            names[key] = (theirs,) if isinstance(theirs, str) else theirs
    return names


def from_other_layout(
    state: Mapping[str, Tensor], student: Iterable[str], path: str
) -> Translation | None:
    """Give a foreign checkpoint's tensors our names.

    Args:
        state: tensors by their names.
        student: our names of the student's tensors, without "student.".
        path: of the file, for messages.

    Returns:
        None where the file holds our own names. Of a file with a student and a teacher both.

    Raises:
        ValueError: the layout is none that is known, a tensor of the student is in no file's tensor,
            or a tensor of the file has no place and no known reason for that.
    """
    if any(key.startswith(STUDENT) for key in state):
        return None
    state = {key.removeprefix("module."): value for key, value in state.items()}
    of_student = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    of_teacher = {
        k.removeprefix("ema_model."): v for k, v in state.items() if k.startswith("ema_model.")
    }
    rest = {k: v for k, v in state.items() if not k.startswith(("model.", "ema_model."))}
    of_student |= rest
    name = next(
        (
            name
            for name, layout in LAYOUTS.items()
            if any(re.match(layout.mark, layout.normalise(key)) for key in of_student)
        ),
        None,
    )
    if name is None:
        titles = "; ".join(layout.title for layout in LAYOUTS.values())
        raise ValueError(
            f"{path}: unknown layout (its first tensor is {next(iter(state))}). Known are this "
            f"project's own checkpoints and those of: {titles}"
        )
    layout, student = LAYOUTS[name], list(student)
    translation = _translate(layout, of_student, student, STUDENT, path)
    if of_teacher:
        teacher = _translate(layout, of_teacher, student, TEACHER, path)
        translation.state |= teacher.state
        translation.dropped |= {f"ema_model.{k}": v for k, v in teacher.dropped.items()}
    return translation


def _translate(
    layout: Layout, state: Mapping[str, Tensor], student: list[str], prefix: str, path: str
) -> Translation:
    left = {layout.normalise(key): value for key, value in state.items()}
    result = Translation(layout.title, {}, {}, {})
    lacking = dict(layout.lacks)
    if not any(key.startswith("decode_head.") for key in left):
        lacking |= NOT_IN_AN_ENCODER
    if "auxiliary_head.uncertain_head.fc1" not in left:
        for key in [key for key in left if key.startswith("auxiliary_head.")]:
            result.dropped[key] = "an auxiliary head without variances"
            del left[key]
    unfilled = []
    names = _theirs(layout, student)
    for ours in student:
        theirs = names.get(ours, ())
        if theirs and all(name in left for name in theirs):
            tensors = [left.pop(name) for name in theirs]
            result.state[prefix + ours] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
            continue
        reason = next((why for start, why in lacking.items() if ours.startswith(start)), None)
        if ours.endswith(UNUSED):
            reason = "a count that is not used"
        if reason is None:
            unfilled.append(f"{ours} ({' and '.join(theirs) or 'no name in this layout'})")
        else:
            result.missing[prefix + ours] = reason
    unused = []
    for key in left:
        reason = next((why for start, why in layout.dropped.items() if re.match(start, key)), None)
        if reason is None:
            unused.append(key)
        else:
            result.dropped[key] = reason
    problems = [
        f"{what} {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        for what, keys in (("it lacks", unfilled), ("nothing here takes its", unused))
        if keys
    ]
    if problems:
        raise ValueError(
            f"{path}, recognised as {layout.title}, does not fit the configured model: "
            f"{'; '.join(problems)}. Check MODEL.TIMM.NAME and MODEL.SEM_SEG_HEAD.NAME"
        )
    return result


def to_other_layout(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Give our student's tensors the names of another project; what it has no place for is left out.

    Args:
        state: tensors by our names, without "student.".
        name: a key of :data:`LAYOUTS`.
    """
    result = {}
    for ours, theirs in _theirs(LAYOUTS[name], state).items():
        tensors = state[ours].chunk(len(theirs)) if len(theirs) > 1 else [state[ours]]
        result |= dict(zip(theirs, tensors, strict=True))
    return result
