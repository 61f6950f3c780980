"""The frozen ImageNet encoder that the feature distance compares with."""

import copy
import difflib

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

from ..checkpoints.checkpointer import StrictCheckpointer
from ..checkpoints.classes import match_classes
from ..checkpoints.encoders import UNUSED
from ..data.catalog import model_metadata
from ..errors import InputError
from ..method.feature_distance import THINGS, FeatureDistance
from ..modeling.meta_arch import PPPCSegmentor
from ..modeling.network import SegmentationNetwork
from ..modeling.timm_backbone import TimmBackbone
from ..processes import sum_over_processes


def feature_distance(cfg: CfgNode, segmentor: PPPCSegmentor) -> FeatureDistance | None:
    """What PPPC.FEATURE_DISTANCE describes; None: its weight is 0.

    Raises:
        InputError: the model has no such classes, or its encoder's ImageNet weights are not known.
    """
    keys = cfg.PPPC.FEATURE_DISTANCE
    if not keys.LOSS_WEIGHT:
        return None
    frozen = imagenet_encoder(cfg, segmentor.student)

    def encoder(image: Tensor) -> Tensor:
        return frozen(image, logits=False, embedding=False, last_stage=True).last_stage

    return FeatureDistance(
        encoder,
        _things(cfg),
        keys.MIN_SHARE,
        keys.LOSS_WEIGHT,
        comm.get_world_size(),
        sum_over_processes,
    )


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


def imagenet_encoder(cfg: CfgNode, student: SegmentationNetwork) -> SegmentationNetwork:
    """A copy of the student's encoder with the weights that it began with, which nothing changes.

    It is made anew whenever a run goes on, so that no checkpoint holds it.

    Raises:
        InputError: these weights are not known, or not of all of the encoder.
    """
    frozen = copy.deepcopy(student).eval().requires_grad_(False)
    key = "PPPC.FEATURE_DISTANCE.WEIGHTS"
    path = cfg.PPPC.FEATURE_DISTANCE.WEIGHTS or cfg.MODEL.WEIGHTS
    if path:
        checkpointer = StrictCheckpointer(
            PPPCSegmentor(student=frozen, self_training=False), cfg=cfg
        )
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
                "PPPC.FEATURE_DISTANCE.LOSS_WEIGHT 0, or take another encoder"
            )
    elif not (cfg.MODEL.TIMM.PRETRAINED and isinstance(student.backbone, TimmBackbone)):
        raise InputError(
            f"PPPC.FEATURE_DISTANCE needs the encoder's ImageNet weights: set {key} to their file "
            "(docs/weights.md), or train a timm encoder with MODEL.TIMM.PRETRAINED True"
        )
    del frozen.sem_seg_head, frozen.probabilistic_head  # they only take memory
    return frozen
