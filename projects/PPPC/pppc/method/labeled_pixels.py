"""Pixels of an embedding with the class that each is labeled with.

Shapes: B images, H x W pixels, h x w positions of the embedding, C classes, D dimensions, N
labeled positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LabeledPixels(NamedTuple):
    """The Gaussians of labeled positions, and their classes.

    Examples:
        >>> pixels = LabeledPixels(torch.eye(2), torch.zeros(2, 2), torch.tensor([3, 3]))
        >>> pixels.mean[pixels.label == 3].mean(0)
        tensor([0.5000, 0.5000])
    """

    mean: Tensor  # (N, D) float32
    log_var: Tensor  # (N, D) float32
    label: Tensor  # (N,) int64, in [0, C)


def resize_labels(label: Tensor, size: Sequence[int]) -> Tensor:
    """Labels ``(B, H, W)`` at the nearest pixel of a grid of ``size`` (h, w): ``(B, h, w)``.

    Examples:
        >>> resize_labels(torch.arange(16).view(1, 4, 4), (2, 2))
        tensor([[[ 0,  2],
                 [ 8, 10]]])
    """
    # Interpolation needs a floating type; float32 holds the integers of a label exactly.
    return F.interpolate(label[:, None].float(), size=size, mode="nearest")[:, 0].long()


def labeled_pixels(
    mean: Tensor, log_var: Tensor, label: Tensor, classes: Tensor, ignore_label: int
) -> LabeledPixels:
    """Select the positions that are labeled with one of ``classes``.

    Args:
        mean, log_var: ``(B, D, h, w)``.
        label: ``(B, H, W)`` train IDs, resized to (h, w) by taking the nearest.
        classes: ``(C,)`` bool, the classes that take part. Labels outside [0, C) do not.
        ignore_label: label of pixels that do not take part.

    Examples:
        >>> mean = torch.arange(3.0).view(1, 1, 1, 3)  # three pixels
        >>> label = torch.tensor([[[1, 255, 0]]])
        >>> both = torch.tensor([True, True])
        >>> pixels = labeled_pixels(mean, torch.zeros_like(mean), label, both, ignore_label=255)
        >>> pixels.mean[:, 0], pixels.label
        (tensor([0., 2.]), tensor([1, 0]))
    """
    label = resize_labels(label, mean.shape[-2:])
    labeled = (label != ignore_label) & (label >= 0) & (label < len(classes))
    selected = labeled & classes[label.where(labeled, 0)]
    return LabeledPixels(
        mean.movedim(1, -1)[selected].float(),
        log_var.movedim(1, -1)[selected].float(),
        label[selected],
    )


def at_most_per_class(pixels: LabeledPixels, maximum: int) -> LabeledPixels:
    """Of each class ``maximum`` pixels drawn at random, or all where it has no more.

    The draw is from PyTorch's global generator, which the training step seeds.

    Examples:
        >>> label = torch.tensor([0, 0, 0, 0, 1])
        >>> pixels = LabeledPixels(torch.zeros(5, 2), torch.zeros(5, 2), label)
        >>> at_most_per_class(pixels, 2).label
        tensor([0, 0, 1])
    """
    shuffled = torch.randperm(len(pixels.label), device=pixels.label.device)
    label = pixels.label[shuffled]
    # Sorted by class, a pixel's place within its class is its distance from the class's first.
    label, order = label.sort(stable=True)
    first = torch.searchsorted(label, label)
    chosen = shuffled[order][torch.arange(len(label), device=label.device) - first < maximum]
    return LabeledPixels(*(tensor[chosen] for tensor in pixels))
