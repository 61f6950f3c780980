"""An encoder that nothing changes, and the ImageNet prototypes that look through it."""

import copy
from typing import Self

from detectron2.config import CfgNode
from torch import Tensor, nn

from ..method.imagenet_prototypes import ImageNetPrototypes
from ..processes import sum_over_processes
from .network import SegmentationNetwork

NUM_STAGES = 2  # of the encoder, that tell classes apart: the coarsest ones (docs/study.md)


class FrozenEncoder(nn.Module):
    """A copy of a network's encoder as it is now: images to its last feature maps.

    Args:
        network: whose encoder is copied.
        num_stages: so many maps, the finest first.

    Examples:
        >>> import torch
        >>> from pppc.modeling.timm_backbone import TimmBackbone
        >>> frozen = FrozenEncoder(SegmentationNetwork(TimmBackbone("test_convnext"), nn.Identity()), 2)
        >>> [tuple(maps.shape) for maps in frozen(torch.zeros(1, 3, 64, 96))]
        [(1, 48, 4, 6), (1, 64, 2, 3)]
    """

    def __init__(self, network: SegmentationNetwork, num_stages: int):
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        del self.network.sem_seg_head, self.network.probabilistic_head  # they only take memory
        self.num_stages = num_stages

    def train(self, mode: bool = True) -> Self:
        """Its BatchNorm and Dropout stay in evaluation mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Of images ``(N, 3, H, W)`` in [0, 255] ``(N, F, h, w)`` each."""
        output = self.network(image, logits=False, embedding=False, last_stages=self.num_stages)
        return output.last_stages


def wants_imagenet_prototypes(cfg: CfgNode) -> bool:
    """Whether they label or predict anything, where the encoder's weights are known."""
    keys, num_classes = cfg.PPPC.IMAGENET_PROTOTYPES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    serve = cfg.PPPC.SELF_TRAINING.ENABLED or keys.PREDICTION
    # One of two classes is all the rest, which has no look of its own.
    return serve and (keys.USE == "always" or keys.USE == "auto" and num_classes != 2)


def build_imagenet_prototypes(
    cfg: CfgNode, student: SegmentationNetwork
) -> ImageNetPrototypes | None:
    """What PPPC.IMAGENET_PROTOTYPES describes, in the student's encoder as it is; None: it is not used."""
    if not wants_imagenet_prototypes(cfg):
        return None
    shapes = sorted(student.backbone.output_shape().values(), key=lambda shape: shape.stride)
    return ImageNetPrototypes(
        FrozenEncoder(student, NUM_STAGES),
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        sum(shape.channels for shape in shapes[-NUM_STAGES:]),
        cfg.PPPC.IMAGENET_PROTOTYPES.TEMPERATURE,
        sum_over_processes,
    )
