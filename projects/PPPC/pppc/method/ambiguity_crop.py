"""The ambiguity-guided crop: train on the part of a target image that is hardest to tell.

Shapes: C classes, D embedding dimensions, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .labeled_pixels import resize_labels
from .pixel_batch import PixelBatch
from .prototypes import GaussianPrototypes

__all__ = [
    "AmbiguityCrop",
    "choose_crop",
    "class_ambiguity_weights",
    "crop_score",
    "standardized_ambiguity",
]

# Standard scores times this lie as far apart as the one snapshot of class ambiguities in the
# published code, for which its temperature of 0.01 was chosen.
STANDARD_SPREAD = 0.03


def class_ambiguity_weights(log_var: Tensor, temperature: float, top_k: int) -> Tensor:
    """How much a pixel of each class counts (arXiv 2409.18543).

    Args:
        log_var: ``(C, D)`` of the prototypes. Classes at minus infinity take no part.
        temperature: of the softmax over the classes' means.
        top_k: the number of classes that count, the most ambiguous ones.

    Returns:
        ``(C,)`` float32, 0 outside the top k; all 0 where no class takes part.

    Examples:
        >>> log_var = torch.tensor([[-5.0, -5.0], [-4.0, -4.0], [-torch.inf, -torch.inf]])
        >>> class_ambiguity_weights(log_var, temperature=1.0, top_k=2)
        tensor([0.2689, 0.7311, 0.0000])
    """
    ambiguity = log_var.float().mean(dim=1)
    # Of minus infinities alone the softmax is not a number.
    weights = torch.softmax(ambiguity / temperature, dim=0).masked_fill(ambiguity.isneginf(), 0)
    top = weights.topk(min(top_k, len(weights)))
    return torch.zeros_like(weights).scatter_(0, top.indices, top.values)


def standardized_ambiguity(log_var: Tensor, seen: Tensor) -> Tensor:
    """Mean log-variance of each class, standardized over the classes seen.

    Prototypes' variances differ in scale from one update rule to another and shrink in training;
    the published softmax then gives all weight to one class, or the same to all.

    Args:
        log_var: ``(C, D)`` of the prototypes.
        seen: ``(C,)`` bool, the classes that have a prototype.

    Returns:
        ``(C, 1)`` to pass to :func:`class_ambiguity_weights`; minus infinity for classes not seen,
        and for all where fewer than two are, since nothing tells them apart.

    Examples:
        >>> seen = torch.tensor([True, True, True, False])
        >>> standardized_ambiguity(torch.tensor([[-5.0], [-4.0], [-3.0], [0.0]]), seen)[:, 0]
        tensor([-0.0300,  0.0000,  0.0300,    -inf])
    """
    ambiguity = log_var.float().mean(dim=1, keepdim=True)
    if seen.sum() < 2:
        return torch.full_like(ambiguity, -torch.inf)
    std, mean = torch.std_mean(ambiguity[seen])
    standard_score = (ambiguity - mean) / std.clamp(min=1e-12)
    return (STANDARD_SPREAD * standard_score).masked_fill(~seen[:, None], -torch.inf)


def crop_score(label: Tensor, weights: Tensor) -> Tensor:
    """Sum of the pixels' weights; labels outside the classes count nothing.

    Args:
        label: ``(h, w)`` of an integer type.
        weights: ``(C,)``.

    Examples:
        >>> label = torch.tensor([[0, 0, 1], [1, 1, 255]])
        >>> crop_score(label, weights=torch.tensor([0.5, 2.0]))
        tensor(7.)
    """
    in_space = (label >= 0) & (label < len(weights))
    bins = label.long().where(in_space, len(weights)).flatten()
    # Unlike bincount, this does not wait for a GPU.
    counts = weights.new_zeros(len(weights) + 1).scatter_add_(0, bins, weights.new_ones(len(bins)))
    return (weights * counts[:-1]).sum()


def choose_crop(
    label: Tensor,
    weights: Tensor | None,
    crop_size: tuple[int, int],
    num_candidates: int,
    generator: torch.Generator,
) -> tuple[int, int]:
    """The (top, left) corner of the most ambiguous of some random boxes, the first of equals.

    Without weights, or with one candidate, that is a uniformly random crop.

    Args:
        label: ``(H, W)`` pseudo-label.
        weights: ``(C,)`` of the classes; None: all boxes are alike.
        crop_size: (height, width), pixels.
        num_candidates: how many boxes to draw.
        generator: of the boxes, on the CPU.

    Raises:
        ValueError: the crop is larger than the label.

    Examples:
        >>> label = torch.zeros(8, 8, dtype=torch.long)
        >>> label[4:, 4:] = 1  # the ambiguous class, at the lower right
        >>> weights = torch.tensor([0.0, 1.0])
        >>> choose_crop(label, weights, (4, 4), 20, torch.Generator().manual_seed(0))
        (4, 4)
    """
    height, width = crop_size
    spare = (label.shape[0] - height, label.shape[1] - width)
    if min(spare) < 0:
        raise ValueError(
            f"a crop of {height}x{width} (INPUT.CROP.SIZE) does not fit in a target image of "
            f"{label.shape[0]}x{label.shape[1]}: make it smaller, or INPUT.TARGET.MIN_SIZE larger"
        )

    def drawn(offset: int) -> int:
        return int(torch.randint(offset + 1, (), generator=generator))

    corners = [(drawn(spare[0]), drawn(spare[1])) for _ in range(num_candidates)]
    if weights is None:
        return corners[0]
    boxes = [label[top : top + height, left : left + width] for top, left in corners]
    scores = torch.stack([crop_score(box, weights) for box in boxes]).tolist()
    return corners[scores.index(max(scores))]


class AmbiguityCrop:
    """Cut from each target image the most ambiguous of some random boxes (arXiv 2409.18543).

    Args:
        size: (height, width) of the boxes, pixels.
        num_candidates: boxes drawn in each image; 1: a random crop, for which nothing is labeled.
        temperature: of the softmax over the classes' ambiguities.
        top_k: the number of classes that count.
        standardize: see :func:`standardized_ambiguity`.
        scale: to which images are resized before they are labeled; 1: as they are.

    Examples:
        >>> prototypes = GaussianPrototypes(num_classes=2, dim=1)
        >>> prototypes.num_updates += 1  # as if both classes had been seen
        >>> prototypes.log_var[1] = 0.02  # class 1 is the more ambiguous one
        >>> crop = AmbiguityCrop(size=(4, 4), num_candidates=20)
        >>> crop.class_weights(prototypes)
        tensor([0.1192, 0.8808])
        >>> image = torch.zeros(1, 3, 8, 8)
        >>> image[..., 4:, 4:] = 255  # bright pixels, labeled 1
        >>> label = lambda batch, scale: (batch.image[:, 0] > 0).long()
        >>> cut = crop(PixelBatch(image), prototypes, label, torch.Generator().manual_seed(0))
        >>> cut.image.shape, cut.image.mean()
        (torch.Size([1, 3, 4, 4]), tensor(255.))
    """

    def __init__(
        self,
        size: tuple[int, int],
        num_candidates: int = 10,
        temperature: float = 0.01,
        top_k: int = 10,
        standardize: bool = False,
        scale: float = 1.0,
    ):
        self.size = size
        self.num_candidates = num_candidates
        self.temperature = temperature
        self.top_k = top_k
        self.standardize = standardize
        self.scale = scale

    def __call__(
        self,
        target: PixelBatch,
        prototypes: GaussianPrototypes | None,
        label: Callable[[PixelBatch, float], Tensor],
        generator: torch.Generator,
    ) -> PixelBatch:
        """
        Args:
            target: images of one size.
            prototypes: whose variance tells the classes' ambiguity; None: the box is random.
            label: images and a scale to pseudo-labels ``(N, h, w)`` of the resized images.
            generator: of the boxes, on the CPU.

        Raises:
            ValueError: the crop is larger than an image.
        """
        if prototypes is None or self.num_candidates == 1:
            labels, weights, candidates = target.image[:, 0], None, 1
        else:
            labels = resize_labels(label(target, self.scale), target.image.shape[-2:])
            weights, candidates = self.class_weights(prototypes), self.num_candidates
        corners = [choose_crop(one, weights, self.size, candidates, generator) for one in labels]
        return target.crop(corners, self.size)

    def class_weights(self, prototypes: GaussianPrototypes) -> Tensor:
        """How much a pixel of each class counts now, ``(C,)``; 0 for one without a prototype."""
        log_var, seen = prototypes.log_var, prototypes.seen
        ambiguity = (
            standardized_ambiguity(log_var, seen)
            if self.standardize
            else log_var.masked_fill(~seen[:, None], -torch.inf)
        )
        return class_ambiguity_weights(ambiguity, self.temperature, self.top_k)
