"""Pixels of an embedding with the class that each is labeled with.

None of this waits for a device to say how many pixels are labeled: those that are not stay among them,
with a label of their own.

Shapes: B images, H x W pixels, h x w positions of the embedding, C classes, D dimensions, P = B h w.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class LabeledPixels(NamedTuple):
    """The Gaussians of positions, and their classes.

    Examples:
        >>> pixels = LabeledPixels(torch.eye(2), torch.zeros(2, 2), torch.tensor([3, 3]))
        >>> pixels.mean[pixels.label == 3].mean(0)
        tensor([0.5000, 0.5000])
    """

    mean: Tensor  # (P, D) float32
    log_var: Tensor  # (P, D) float32
    label: Tensor  # (P,) int64, in [0, C); C where the position takes no part


def count_labels(label: Tensor, num_classes: int) -> Tensor:
    """How many labels there are of each class, ``(C,)`` int64; others count nothing.

    Unlike ``bincount``, it does not wait for a device.

    Examples:
        >>> count_labels(torch.tensor([[0, 0, 2], [2, 2, 255]]), num_classes=3)
        tensor([2, 0, 3])
    """
    in_space = (label >= 0) & (label < num_classes)
    bins = label.long().where(in_space, num_classes).flatten()
    return bins.new_zeros(num_classes + 1).scatter_add_(0, bins, torch.ones_like(bins))[:-1]


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
    """All positions; those that are not labeled with one of ``classes`` have the label C.

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
        (tensor([0., 1., 2.]), tensor([1, 2, 0]))
    """
    label = resize_labels(label, mean.shape[-2:])
    labeled = (label != ignore_label) & (label >= 0) & (label < len(classes))
    selected = labeled & classes[label.where(labeled, 0)]
    return LabeledPixels(
        mean.movedim(1, -1).flatten(0, -2).float(),
        log_var.movedim(1, -1).flatten(0, -2).float(),
        label.where(selected, len(classes)).flatten(),
    )


def at_most_per_class(pixels: LabeledPixels, maximum: int, num_classes: int) -> LabeledPixels:
    """Of each class ``maximum`` pixels drawn at random, or all where it has no more.

    The draw is from PyTorch's global generator, which the training step seeds.

    Returns:
        C times ``maximum`` pixels; those that fill up a class have the label C.

    Examples:
        >>> label = torch.tensor([0, 0, 0, 0, 1])
        >>> pixels = LabeledPixels(torch.zeros(5, 2), torch.zeros(5, 2), label)
        >>> at_most_per_class(pixels, 2, num_classes=2).label
        tensor([0, 0, 1, 2])
    """
    shuffled = torch.randperm(len(pixels.label), device=pixels.label.device)
    label, order = pixels.label[shuffled].sort(stable=True)
    classes = torch.arange(num_classes, device=label.device)[:, None]
    # Sorted by class, those of a class begin at its first.
    place = torch.searchsorted(label, classes) + torch.arange(maximum, device=label.device)
    inside, place = place < len(label), place.clamp(max=len(label) - 1)
    found = torch.where(inside & (label[place] == classes), classes, num_classes)
    chosen = shuffled[order[place.flatten()]]
    return LabeledPixels(pixels.mean[chosen], pixels.log_var[chosen], found.flatten())
