"""The teacher: moving average of the student, and the pseudo-labels it gives.

Shapes: N images, C classes, H x W pixels, h x w positions of the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn

__all__ = [
    "PseudoLabel",
    "fuse_day_night",
    "pixel_weights",
    "pseudo_label",
    "teacher_momentum",
    "update_teacher",
    "upsampled_probabilities",
]


def teacher_momentum(iteration: int, momentum: float) -> float:
    """The teacher's share in its update: the plain average of all students, then ``momentum``.

    It is 0 at iteration 0, which makes the teacher a copy of the student.
    """
    return min(1 - 1 / (iteration + 1), momentum)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, parameters only, in place.

    Buffers are copied. The published code leaves the teacher's running statistics as they were
    first; it never uses them, as its teacher normalises by the batch, but whoever evaluates the
    teacher does.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
    for ours, theirs in zip(teacher.buffers(), student.buffers()):
        ours.copy_(theirs)


class PseudoLabel(NamedTuple):
    """What the teacher says of target images."""

    label: Tensor  # (N, H, W) int64, the most probable class
    confidence: Tensor  # (N, H, W) float32, its probability
    weight: Tensor  # scalar: the share of confident pixels in the batches of all processes


def upsampled_probabilities(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Class scores ``(N, C, h, w)`` to probabilities ``(N, C, H, W)`` at ``size`` (H, W)."""
    logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    return logits.softmax(dim=1)


def pseudo_label(probabilities: Tensor, threshold: float) -> PseudoLabel:
    """The most probable classes, and how many of them are trusted (DACS, equation 4).

    Args:
        probabilities: ``(N, C, H, W)``.
        threshold: from which probability a pixel counts as confident.
    """
    confidence, label = probabilities.max(dim=1)
    weight = (confidence >= threshold).float().mean()
    if comm.get_world_size() > 1:
        dist.all_reduce(weight)
        weight /= comm.get_world_size()
    return PseudoLabel(label, confidence, weight)


def pixel_weights(pseudo: PseudoLabel, ignore_top: int, ignore_bottom: int) -> Tensor:
    """The batch's weight at every pixel, 0 on the first and last rows: ``(N, H, W)`` float32."""
    weight = pseudo.weight.expand(pseudo.label.shape).clone()
    weight[:, :ignore_top] = 0
    weight[:, weight.shape[1] - ignore_bottom :] = 0
    return weight


def fuse_day_night(
    day: Tensor,
    night: Tensor,
    static_classes: Sequence[int],
    class_weights: Tensor | None = None,
) -> Tensor:
    """Let a daytime image of the same place help to label the night's static classes.

    Args:
        day, night: probabilities ``(N, C, H, W)``.
        static_classes: train IDs of what stays where it is (road, building, sky, ...).
        class_weights: ``(C,)`` factors of the fused probabilities.

    Returns:
        ``(N, C, H, W)``: for static classes 0.8 day + 0.2 night where the day is at least
        moderately sure (above 0.4), else 0.2 day + 0.8 night; for the others the night's.
    """
    share = torch.zeros_like(night)
    static = list(static_classes)
    share[:, static] = torch.where(day[:, static] > 0.4, 0.8, 0.2).to(share.dtype)
    fused = share * day + (1 - share) * night
    return fused if class_weights is None else fused * class_weights.view(1, -1, 1, 1)
