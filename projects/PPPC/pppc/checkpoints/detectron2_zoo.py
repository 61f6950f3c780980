"""Encoders of Detectron2: its model zoo's files, and others that have its names, for its backbones."""

import logging
import re
from collections.abc import Iterable, Mapping

from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from ..errors import InputError
from ..modeling.normalization import Preparation
from .encoders import OTHER_NETWORK, UNUSED
from .layouts import NOT_IN_AN_ENCODER
from .translation import STUDENT, Translation

ENCODER = "backbone."
AUTHOR = "__author__"  # the model zoo's files name who converted them
CAFFE2_STD = (1 / 255, 1 / 255, 1 / 255)


def preparation_of(content: Mapping[str, object], path: str) -> Preparation | None:
    """How images of a model zoo's file were prepared; None: it is of another origin.

    Detectron2's own networks, and Caffe2's from which they start, take BGR images that are not divided
    by a deviation, but for ResNeXt-101; torchvision's take what all of its networks take.
    """
    author = content.get(AUTHOR)
    if author == "torchvision":
        return Preparation(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if author is None and not _is_caffe2(content["model"]):
        return None
    divided = re.search(r"X[-_]101", path) is not None
    std = IMAGENET_DEFAULT_STD if divided else CAFFE2_STD
    return Preparation(IMAGENET_DEFAULT_MEAN, std, "BGR")


def _is_caffe2(state: Iterable[str]) -> bool:
    return any(re.fullmatch(r"\w+_w", key) for key in state)


def from_detectron2(
    state: Mapping[str, Tensor], student: Mapping[str, Tensor], path: str
) -> Translation:
    """Give the encoder in a file our names, by Detectron2's matching of the ends of names.

    Args:
        state: tensors by their names; Caffe2's are known, too.
        student: the student's tensors by our names, without "student.".

    Raises:
        InputError: the file has no tensor of the encoder, or is of a smaller or a larger one.
    """
    wanted = {key: tensor for key, tensor in student.items() if key.startswith(ENCODER)}
    theirs = {
        re.sub(r"\Abackbone\.(bottom_up\.)?", "", key): tensor
        for key, tensor in state.items()
        if not key.endswith("_momentum")
    }
    log = logging.getLogger(align_and_update_state_dicts.__module__)
    former, log.disabled = log.disabled, True  # what it warns of is refused below
    try:
        matched = align_and_update_state_dicts(wanted, theirs, c2_conversion=_is_caffe2(theirs))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    finally:
        log.disabled = former
    filled = {key: tensor for key, tensor in matched.items() if key in wanted}
    rest = [key for key in matched if key not in wanted]
    if not filled:
        raise InputError(
            f"{path}: unknown layout (its first tensor is {next(iter(state))}): none of its tensors "
            f"is the encoder's, such as {next(iter(wanted))}"
        )
    # Tensors that differ in numbers alone, as those of the blocks of a stage do.
    kinds = {_kind(key) for key in filled}
    ends = {_kind(key)[1:] for key in filled}
    missing = [key for key in wanted if key not in filled]
    lacking = [key for key in missing if _kind(key) in kinds and not key.endswith(UNUSED)]
    unused = [key for key in rest if any(end[-len(_kind(key)) :] == _kind(key) for end in ends)]
    if lacking or unused:
        problem = f"it lacks {lacking[0]}" if lacking else f"nothing here takes its {unused[0]}"
        raise InputError(
            f"{path} is of another encoder than the configured one: {problem}. Check the keys of "
            "MODEL.BACKBONE.NAME's encoder, such as MODEL.RESNETS.DEPTH"
        )
    why = {key: "the file has none" for key in missing} | {
        key: reason
        for key in student
        for start, reason in NOT_IN_AN_ENCODER.items()
        if key.startswith(start)
    }
    return Translation(
        "an encoder in Detectron2's names",
        {STUDENT + key: tensor for key, tensor in filled.items()},
        dict.fromkeys(rest, OTHER_NETWORK),
        {STUDENT + key: reason for key, reason in why.items()},
    )


def _kind(key: str) -> tuple[str, ...]:
    """A name's parts, without numbers."""
    return tuple(re.sub(r"\d+", "", part) for part in key.split("."))
