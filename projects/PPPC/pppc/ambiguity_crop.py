"""The ambiguity-guided crop: train on the part of a target image that is hardest to tell.

Shapes: C classes, D embedding dimensions, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["choose_crop", "class_ambiguity_weights", "crop_score", "standardized_ambiguity"]

# Standardised ambiguities times this lie as far apart as the published snapshot of class weights.
STANDARD_SPREAD = 0.03


def class_ambiguity_weights(log_var: Tensor, temperature: float, top_k: int) -> Tensor:
    """How much a pixel of each class counts (paper, section 3.4).

    Args:
        log_var: ``(C, D)`` of the prototypes.
        temperature: of the softmax over the classes' means.
        top_k: the classes that count, the most ambiguous ones.

    Returns:
        ``(C,)``, 0 outside the top k.
    """
    weights = torch.softmax(log_var.float().mean(dim=1) / temperature, dim=0)
    top = weights.topk(min(top_k, len(weights)))
    return torch.zeros_like(weights).scatter_(0, top.indices, top.values)


def standardized_ambiguity(log_var: Tensor, seen: Tensor) -> Tensor:
    """Mean log-variances of the classes seen, standardised, so that their scale does not matter.

    Args:
        log_var: ``(C, D)`` of the prototypes.
        seen: ``(C,)`` bool.

    Returns:
        ``(C, 1)``, to be weighed by :func:`class_ambiguity_weights`: minus infinity for classes
        not seen, all 0 where fewer than two are.
    """
    ambiguity = log_var.float().mean(dim=1)
    if seen.sum() < 2:
        return torch.zeros_like(ambiguity)[:, None]
    mean, std = ambiguity[seen].mean(), ambiguity[seen].std().clamp(min=1e-12)
    standard = STANDARD_SPREAD * (ambiguity - mean) / std
    return standard.masked_fill(~seen, -torch.inf)[:, None]


def crop_score(label: Tensor, weights: Tensor) -> float:
    """Sum of the pixels' weights; labels outside the classes count nothing.

    Args:
        label: ``(h, w)`` int64.
        weights: ``(C,)``.
    """
    in_space = (label >= 0) & (label < len(weights))
    counts = torch.bincount(label[in_space].flatten(), minlength=len(weights))
    return float((weights * counts).sum())


def choose_crop(
    label: Tensor,
    weights: Tensor,
    crop_size: tuple[int, int],
    num_candidates: int,
    generator: torch.Generator,
) -> tuple[int, int]:
    """The top left corner of the most ambiguous of some random boxes; the first of equals.

    Args:
        label: ``(H, W)`` pseudo-label.
        weights: ``(C,)`` of the classes.
        crop_size: (height, width), pixels.
        num_candidates: how many boxes to draw.
        generator: of the boxes.

    Raises:
        ValueError: the crop is larger than the label.
    """
    spare = [label.shape[i] - crop_size[i] for i in range(2)]
    if min(spare) < 0:
        raise ValueError(f"a crop of {crop_size} does not fit in an image of {tuple(label.shape)}")
    boxes = [
        tuple(int(torch.randint(s + 1, (), generator=generator)) for s in spare)
        for _ in range(num_candidates)
    ]
    if num_candidates == 1:
        return boxes[0]
    height, width = crop_size
    scores = [crop_score(label[y : y + height, x : x + width], weights) for y, x in boxes]
    return boxes[scores.index(max(scores))]
