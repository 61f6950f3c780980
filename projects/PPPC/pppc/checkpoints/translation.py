"""Giving the tensors of other projects' checkpoints our names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..modeling.timm_backbone import TimmEncoder
from .encoders import OTHER_NETWORK, UNUSED, find_encoder
from .layouts import LAYOUTS, NOT_IN_AN_ENCODER, Layout
from .networks import take_network

STUDENT, TEACHER = "student.", "teacher."
ENCODER = "backbone.model."


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


def own_names(state: Mapping[str, Tensor], path: str) -> Translation | None:
    """Tensors that have our names already, behind whatever another program put before them.

    None where the file holds no decoder of ours. InputError: it holds several segmentors, and nothing tells
    which one is wanted.
    """
    network = take_network(r"(?:student\.|teacher\.)?sem_seg_head\.", state, path)
    if network is None:
        return None
    own = network.state
    if not any(key.startswith((STUDENT, TEACHER)) for key in own):
        own = {STUDENT + key: tensor for key, tensor in own.items()}
    return Translation("this project's", own, dict.fromkeys(network.rest, OTHER_NETWORK), {})


def from_other_layout(
    state: Mapping[str, Tensor],
    student: Iterable[str],
    path: str,
    encoder: TimmEncoder | None = None,
) -> Translation:
    """Give a foreign checkpoint's tensors our names.

    Args:
        state: tensors by their names.
        student: our names of the student's tensors, without "student.".
        path: of the file, for messages.
        encoder: the backbone, for files of timm's and torchvision's encoders.

    Returns:
        The student; where the file has the moving average of the same network beside it, the teacher, too.

    Raises:
        InputError: the layout is unknown, a tensor is left over here or there without a known reason, or
            nothing tells which of several networks is wanted.
    """
    student = list(student)
    for layout in LAYOUTS.values():
        network = take_network(layout.mark, state, path)
        if network is None:
            continue
        translation = _translate(layout, network.state, student, STUDENT, path)
        rest = network.rest
        if layout.decoder and (average := take_network(layout.mark, rest, path)):
            teacher = _translate(layout, average.state, student, TEACHER, path)
            translation.state |= teacher.state
            translation.dropped |= {average.prefix + k: why for k, why in teacher.dropped.items()}
            rest = average.rest
        translation.dropped |= {key: layout.reason(key) or OTHER_NETWORK for key in rest}
        return translation
    return _from_timm(state, student, path, encoder)


def _from_timm(
    state: Mapping[str, Tensor],
    student: list[str],
    path: str,
    encoder: TimmEncoder | None,
) -> Translation:
    names = [key.removeprefix(ENCODER) for key in student if key.startswith(ENCODER)]
    network = encoder.whole_network() if encoder and names else None
    found = find_encoder(state, names, network, path) if network else None
    if encoder is None or found is None:
        titles = "; ".join(layout.title for layout in LAYOUTS.values())
        raise InputError(
            f"{path}: unknown layout (its first tensor is {next(iter(state))}). Known are timm's own "
            f"names of {encoder.name if encoder else 'an encoder'}, which MODEL.TIMM.NAME names, this "
            f"project's checkpoints and those of: {titles}"
        )
    if found.unknown:
        raise InputError(
            f"{path} is of a larger network than MODEL.TIMM.NAME {encoder.name}: nothing there takes its "
            f"{_listed(found.unknown)}. Set MODEL.TIMM.NAME to the encoder that the file is of"
        )
    state = {STUDENT + ENCODER + name: tensor for name, tensor in found.tensors.items()}
    missing = {
        STUDENT + key: "a count that is not used" if key.startswith(ENCODER) else why
        for key in student
        for start, why in {ENCODER: "", **NOT_IN_AN_ENCODER}.items()
        if key.startswith(start) and STUDENT + key not in state
    }
    title = f"the encoder {encoder.name} in timm's names" + (
        f", below {found.prefix[:-1]}" if found.prefix else ""
    )
    return Translation(title, state, found.dropped, missing)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _translate(
    layout: Layout, state: Mapping[str, Tensor], student: list[str], prefix: str, path: str
) -> Translation:
    left = dict(layout.read(state))
    result = Translation(layout.title, {}, {}, {})
    lacking = dict(layout.lacks)
    if not any(key.startswith("decode_head.") for key in left):
        lacking |= NOT_IN_AN_ENCODER
    if "auxiliary_head.uncertain_head.fc1" not in left:
        for key in [key for key in left if key.startswith("auxiliary_head.")]:
            result.dropped[key] = "an auxiliary head without variances"
            del left[key]
    unfilled = []
    for ours in student:
        theirs = layout.rename(ours)
        if all(name in left for name in theirs):
            tensors = [left.pop(name) for name in theirs]
            result.state[prefix + ours] = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
            continue
        reason = next((why for start, why in lacking.items() if ours.startswith(start)), None)
        if ours.endswith(UNUSED):
            reason = "a count that is not used"
        if reason is None:
            unfilled.append(f"{ours} ({' and '.join(theirs)})")
        else:
            result.missing[prefix + ours] = reason
    unused = []
    for key in left:
        reason = layout.reason(key)
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
        classifier = state.get(layout.rename("sem_seg_head.classifier.1.weight")[0])
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
