"""Giving the tensors of other projects' checkpoints our names, and ours theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .encoders import UNUSED, find_encoder
from .layouts import LAYOUTS, NOT_IN_AN_ENCODER, Layout

__all__ = ["Translation", "from_other_layout", "to_other_layout"]

STUDENT, TEACHER = "student.", "teacher."
ENCODER = "backbone.model."
TEACHERS = ("ema_model.", "teacher.")


@dataclass
class Translation:
    """Weights under our names, and what became of the rest.

    Attributes:
        title: what the file was recognized as.
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
    state: Mapping[str, Tensor], student: Iterable[str], path: str, encoder: str = ""
) -> Translation | None:
    """Give a foreign checkpoint's tensors our names.

    Args:
        state: tensors by their names.
        student: our names of the student's tensors, without "student.".
        path: of the file, for messages.
        encoder: MODEL.TIMM.NAME, for files of timm's and torchvision's encoders.

    Returns:
        None where the file holds our own names. Of a file with a student and a teacher both.

    Raises:
        InputError: the layout is none that is known, a tensor of the student is in no file's
            tensor, or a tensor of the file has no place and no known reason for that.
    """
    if any(key.startswith((STUDENT + ENCODER, STUDENT + "sem_seg_head.")) for key in state):
        return None
    of_student, of_teacher = _split(state)
    student = list(student)
    for prefix in ("", "backbone."):
        part = {k.removeprefix(prefix): v for k, v in of_student.items() if k.startswith(prefix)}
        for layout in LAYOUTS.values():
            read = layout.read(part)
            if not any(re.match(layout.mark, key) for key in read) or (prefix and layout.decoder):
                continue
            translation = _translate(layout, read, student, STUDENT, path)
            if prefix:  # the encoder of a network whose decoder is not known here
                rest = [key for key in of_student if not key.startswith(prefix)]
                translation.dropped |= dict.fromkeys(rest, "they are not of the encoder")
            elif of_teacher:
                teacher = _translate(layout, layout.read(of_teacher), student, TEACHER, path)
                translation.state |= teacher.state
                translation.dropped |= {f"{TEACHER}{k}": v for k, v in teacher.dropped.items()}
            return translation
    return _from_timm(of_student, student, path, encoder)


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A student's tensors and a teacher's, which such files hold beside each other."""
    student, teacher = {}, {}
    for key, tensor in state.items():
        if key.startswith(TEACHERS):
            teacher[key.split(".", 1)[1]] = tensor
        else:
            student[re.sub(r"\A(model|student)\.", "", key)] = tensor
    return student or teacher, teacher


def _from_timm(
    state: Mapping[str, Tensor], student: list[str], path: str, encoder: str
) -> Translation:
    names = [key.removeprefix(ENCODER) for key in student if key.startswith(ENCODER)]
    found = find_encoder(state, names, encoder) if encoder and names else None
    if found is None:
        titles = "; ".join(layout.title for layout in LAYOUTS.values())
        raise InputError(
            f"{path}: unknown layout (its first tensor is {next(iter(state))}). Known are timm's own "
            f"names of {encoder or 'an encoder'}, which MODEL.TIMM.NAME names, this project's "
            f"checkpoints and those of: {titles}"
        )
    if found.unknown:
        raise InputError(
            f"{path} is of a larger network than MODEL.TIMM.NAME {encoder}: nothing there takes its "
            f"{_listed(found.unknown)}. Set MODEL.TIMM.NAME to the encoder that the file is of"
        )
    state = {STUDENT + ENCODER + name: tensor for name, tensor in found.tensors.items()}
    missing = {
        STUDENT + key: "a count that is not used" if key.startswith(ENCODER) else why
        for key in student
        for start, why in {ENCODER: "", **NOT_IN_AN_ENCODER}.items()
        if key.startswith(start) and STUDENT + key not in state
    }
    return Translation(f"the encoder {encoder} in timm's names", state, found.dropped, missing)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _translate(
    layout: Layout, state: Mapping[str, Tensor], student: list[str], prefix: str, path: str
) -> Translation:
    left = dict(state)
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
        f"{what} {_listed(keys)}"
        for what, keys in (("it lacks", unfilled), ("nothing here takes its", unused))
        if keys
    ]
    if problems:
        advice = "Check MODEL.TIMM.NAME and MODEL.SEM_SEG_HEAD.NAME"
        classifier = state.get(layout.rename("sem_seg_head.classifier.1.weight") or "")
        if layout.decoder and classifier is not None:
            advice = (
                f"Its decoder is MODEL.SEM_SEG_HEAD.NAME {layout.decoder}, "
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM {classifier.shape[1]}; check MODEL.TIMM.NAME, too"
            )
        raise InputError(
            f"{path}, recognized as {layout.title}, does not fit the configured model: "
            f"{'; '.join(problems)}. {advice}"
        )
    return result


def to_other_layout(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Give our student's tensors the names of another project; what it has no place for is left out.

    Args:
        state: tensors by our names, without "student.".
        name: a key of :data:`pppc.checkpoints.layouts.LAYOUTS`.
    """
    result = {}
    layout = LAYOUTS[name]
    for ours, theirs in _theirs(layout, state).items():
        tensors = state[ours].chunk(len(theirs)) if len(theirs) > 1 else [state[ours]]
        result |= dict(zip(theirs, tensors, strict=True))
    return layout.write(result)
