"""The contrast between pixels and class prototypes.

Shapes: B images, H x W pixels, h x w positions of the embedding, C classes, D dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussian import SCORES
from .labeled_pixels import at_most_per_class, count_labels, labeled_pixels

KL_REDUCTIONS = ("sum", "mean")


def contrast_schedule(iteration: int, max_iter: int, start_iter: int, multiplier: float) -> float:
    """Weight of the contrast at an iteration, counted from 0 (the published ramp-down).

    ``exp(multiplier * ((iteration + 1) / max_iter)^2)`` from ``start_iter`` on, 0 before it and at
    the last iteration. A multiplier of 0 means no ramp: 1 from ``start_iter`` to the end.

    Examples:
        >>> weights = [contrast_schedule(i, max_iter=6, start_iter=2, multiplier=-1.0) for i in range(6)]
        >>> [round(weight, 3) for weight in weights]
        [0.0, 0.0, 0.779, 0.641, 0.499, 0.0]
    """
    if iteration < start_iter:
        return 0.0
    if multiplier == 0:
        return 1.0
    if iteration >= max_iter - 1:
        return 0.0
    return math.exp(multiplier * ((iteration + 1) / max_iter) ** 2)


@dataclass
class PrototypeContrast:
    """Pull each labeled pixel to its class's prototype, push it from the others.

    Args:
        temperature: divides the scores.
        kl_weight: weight of the divergence of the pixels' Gaussians from the standard one.
        ignore_label: label of pixels that take no part.
        score: between a pixel and a prototype, a name in :data:`pppc.method.gaussian.SCORES`.
        max_pixels_per_class: of each class that many pixels at most, drawn at random, the same
            number in each process; 0: all.
        kl_reduction: the divergence's "sum" over pixels and dimensions, as published, or their
            "mean", which does not grow with images, batches and D.
        processes: among which the batch is shared. The mean of their losses is the whole batch's.
        total: of a tensor over the processes.

    Raises:
        ValueError: the score or the reduction is unknown.

    Examples:
        >>> prototypes = torch.eye(3), torch.full((3, 3), -3.0)  # means and log-variances
        >>> mean = torch.eye(3).view(1, 3, 1, 3)  # an image of three pixels
        >>> log_var = torch.full_like(mean, -3.0)
        >>> contrast = PrototypeContrast(temperature=1.0)
        >>> right, wrong = torch.tensor([[[0, 1, 2]]]), torch.tensor([[[1, 2, 0]]])
        >>> contrast(mean, log_var, right, *prototypes)["loss_contrast"]
        tensor(0.0680)
        >>> contrast(mean, log_var, wrong, *prototypes)["loss_contrast"]
        tensor(3.4156)
    """

    temperature: float = 100.0
    kl_weight: float = 1e-6
    ignore_label: int = 255
    score: str = "mutual_likelihood"
    max_pixels_per_class: int = 0
    kl_reduction: str = "sum"
    processes: int = 1
    total: Callable[[Tensor], Tensor] = lambda counts: counts

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ValueError(f"score is {self.score!r}: use one of {sorted(SCORES)}")
        if self.kl_reduction not in KL_REDUCTIONS:
            raise ValueError(f"kl_reduction is {self.kl_reduction!r}: use one of {KL_REDUCTIONS}")

    def __call__(
        self,
        mean: Tensor,
        log_var: Tensor,
        label: Tensor,
        prototypes_mean: Tensor,
        prototypes_log_var: Tensor,
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The two losses of arXiv 2409.18543, before the schedule's weight.

        Args:
            mean, log_var: ``(B, D, h, w)`` of the pixels.
            label: ``(B, H, W)`` train IDs or the ignore label, resized to the nearest.
            prototypes_mean, prototypes_log_var: ``(C, D)``; they get no gradient.
            seen: ``(C,)`` bool, the classes that have a prototype; None: all. The others leave the
                softmax, and pixels labeled with one are dropped.

        Returns:
            "loss_contrast": cross-entropy of the scores over the prototypes, averaged over the
            pixels of each class, then over the classes present. "loss_kl": ``kl_weight`` times
            the divergence's sum or mean over pixels and dimensions. Both are 0 with a zero gradient
            where nothing is labeled. Of several processes, pixels and classes are those of all, and
            the mean of the processes' losses is the whole batch's.
        """
        if seen is None:
            seen = torch.ones(len(prototypes_mean), dtype=torch.bool, device=label.device)
        pixels = labeled_pixels(mean, log_var, label, seen, self.ignore_label)
        if self.max_pixels_per_class:
            share = -(-self.max_pixels_per_class // self.processes)
            pixels = at_most_per_class(pixels, share, len(seen))

        prototypes = prototypes_mean.detach(), prototypes_log_var.detach()
        # Of no class at all the softmax is not a number, nor is its gradient.
        some = seen | ~seen.any()
        logits = self.class_logits(pixels.mean, pixels.log_var, *prototypes, some)
        counts = self.total(count_labels(pixels.label, len(seen)))
        takes_part = pixels.label < len(seen)
        # Every class weighs the same, however many pixels it has. The processes' gradients are
        # averaged later: times their number, that is a sum.
        weight = self.processes / ((counts > 0).sum() * counts[pixels.label.where(takes_part, 0)])
        cross_entropy = F.cross_entropy(
            logits, pixels.label, ignore_index=len(seen), reduction="none"
        )
        divergence = -0.5 * (1 + pixels.log_var - pixels.mean.square() - pixels.log_var.exp())
        kl = self.processes * self.kl_weight * divergence.where(takes_part[:, None], 0).sum()
        if self.kl_reduction == "mean":
            kl = kl / (counts.sum().clamp(min=1) * pixels.mean.shape[1])
        contrast = (weight.where(takes_part, 0) * cross_entropy).sum()
        return {"loss_contrast": contrast, "loss_kl": kl}

    def class_logits(
        self,
        mean: Tensor,
        log_var: Tensor,
        prototypes_mean: Tensor,
        prototypes_log_var: Tensor,
        seen: Tensor,
    ) -> Tensor:
        """Scores over the temperature, minus infinity for classes not seen, ``(P, C)``.

        Args:
            mean, log_var: ``(P, D)`` of the pixels.
            prototypes_mean, prototypes_log_var: ``(C, D)``.
            seen: ``(C,)`` bool.
        """
        scores = SCORES[self.score](mean, log_var, prototypes_mean, prototypes_log_var)
        return (scores / self.temperature).masked_fill(~seen, -torch.inf)
