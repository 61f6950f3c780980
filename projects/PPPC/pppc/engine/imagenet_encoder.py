"""The frozen ImageNet encoder, and the parts of the method that look at it."""

import copy
import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..checkpoints.checkpointer import StrictCheckpointer
from ..checkpoints.classes import match_classes
from ..checkpoints.encoders import UNUSED
from ..data.catalog import model_metadata
from ..errors import InputError
from ..method.feature_distance import THINGS, FeatureDistance
from ..modeling.frozen_encoder import NUM_STAGES, FrozenEncoder
from ..modeling.meta_arch import PPPCSegmentor
from ..modeling.network import SegmentationNetwork
from ..modeling.timm_backbone import TimmBackbone
from ..processes import sum_over_processes

logger = logging.getLogger(__name__)

# How each part that needs the encoder is switched off.
OFF = {
    "FEATURE_DISTANCE": "PPPC.FEATURE_DISTANCE.LOSS_WEIGHT 0",
    "IMAGENET_PROTOTYPES": "PPPC.IMAGENET_PROTOTYPES.USE never",
}


def feature_distance(cfg: CfgNode, segmentor: PPPCSegmentor) -> FeatureDistance | None:
    """What PPPC.FEATURE_DISTANCE describes; None: its weight is 0.

    Raises:
        InputError: the model has no such classes, or its encoder's ImageNet weights are not known.
    """
    keys = cfg.PPPC.FEATURE_DISTANCE
    if not keys.LOSS_WEIGHT:
        return None
    encoder = imagenet_encoder(cfg, segmentor.student, "FEATURE_DISTANCE", num_stages=1)
    return FeatureDistance(
        lambda image: encoder(image)[0],
        _things(cfg),
        keys.MIN_SHARE,
        keys.LOSS_WEIGHT,
        comm.get_world_size(),
        sum_over_processes,
    )


def begin_imagenet_prototypes(cfg: CfgNode, segmentor: PPPCSegmentor) -> None:
    """Let a training's ImageNet prototypes begin, with the encoder's own weights and without any class.

    A model that the training starts from may have brought the encoder. Where the weights are not known,
    the segmentor loses its prototypes. A run that goes on has them in its checkpoint.

    Raises:
        InputError: PPPC.IMAGENET_PROTOTYPES.USE is "always", and the weights are not known.
    """
    keys, without = cfg.PPPC.IMAGENET_PROTOTYPES, "Without ImageNet prototypes: %s"
    prototypes = segmentor.imagenet_prototypes
    if prototypes is None:
        if keys.USE == "never" and (keys.PREDICTION or keys.WEIGHTS):
            logger.info(
                without, "PPPC.IMAGENET_PROTOTYPES.USE is never, so its other keys do nothing"
            )
        if keys.USE == "auto" and (cfg.PPPC.SELF_TRAINING.ENABLED or keys.PREDICTION):
            logger.info(without, "there are two classes")
        return
    brought = bool(prototypes.sums.any())
    prototypes.sums.zero_()
    prototypes.prediction_weight.fill_(1)
    if brought and not keys.WEIGHTS:
        return
    try:
        encoder = imagenet_encoder(cfg, segmentor.student, "IMAGENET_PROTOTYPES", NUM_STAGES)
    except InputError as error:
        if keys.USE == "always":
            raise
        logger.info(without, error)
        segmentor.imagenet_prototypes = None
    else:
        # In place: DistributedDataParallel keeps what it was given.
        prototypes.encoder.load_state_dict(encoder.state_dict())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the student's own loading of such a file tells already."""
    logger = logging.getLogger("pppc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _things(cfg: CfgNode) -> list[int]:
    """Train IDs of PPPC.FEATURE_DISTANCE.CLASSES, or of those of the paper's that the model has."""
    classes = model_metadata(cfg).stuff_classes
    given = cfg.PPPC.FEATURE_DISTANCE.CLASSES
    found = match_classes(given or THINGS, classes)
    unknown = [name for i, name in enumerate(given) if i not in found.values()]
    if unknown or not found:
        near = unknown and difflib.get_close_matches(unknown[0], classes, 1) or classes
        raise InputError(
            f"PPPC.FEATURE_DISTANCE.CLASSES is {given!r}, "
            + (
                f"but {unknown[0]!r} is no class"
                if unknown
                else "but none of the paper's is a class"
            )
            + f" of the model: give {' or '.join(near)}"
        )
    return list(found)


def imagenet_encoder(
    cfg: CfgNode, student: SegmentationNetwork, part: str, num_stages: int
) -> FrozenEncoder:
    """A copy of the student's encoder with the weights that it began with, on the student's device.

    ``part`` is the section of PPPC that it is for, ``num_stages`` how many maps it gives.

    Raises:
        InputError: these weights are not known, or not of all of the encoder.
    """
    as_it_began = copy.deepcopy(student)
    key = f"PPPC.{part}.WEIGHTS"
    path = cfg.PPPC[part].WEIGHTS or cfg.MODEL.WEIGHTS
    if path:
        checkpointer = StrictCheckpointer(
            PPPCSegmentor(student=as_it_began, self_training=False), cfg=cfg
        )
        with _quiet():
            checkpointer.load(path, checkpointables=[])
        if not any(name.startswith("student.sem_seg_head.") for name in checkpointer.missing):
            raise InputError(
                f"{path} is a whole model, whose encoder's features are ImageNet's no more: set {key} to "
                "the file of the encoder that it was trained from (docs/weights.md)"
            )
        lacking = [
            name
            for name in checkpointer.missing
            if name.startswith("student.backbone.") and not name.endswith(UNUSED)
        ]
        if lacking:
            raise InputError(
                f"{path} has no {lacking[0]}, so that the last feature map is not ImageNet's: set "
                f"{OFF[part]}, or take another encoder"
            )
    elif not (cfg.MODEL.TIMM.PRETRAINED and isinstance(student.backbone, TimmBackbone)):
        raise InputError(
            f"PPPC.{part} needs the encoder's ImageNet weights: set {key} to their file "
            "(docs/weights.md), or train a timm encoder with MODEL.TIMM.PRETRAINED True"
        )
    return FrozenEncoder(as_it_began, num_stages)
