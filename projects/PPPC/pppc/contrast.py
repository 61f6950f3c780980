"""The contrast between pixels and class prototypes.

Shapes: B images, H x W pixels, h x w positions of the embedding, C classes, D dimensions, N
labelled positions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import mutual_likelihood_score

__all__ = ["PrototypeContrast", "contrast_schedule", "resize_labels"]


def resize_labels(label: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels ``(B, H, W)`` at the nearest pixel of a grid of ``size`` (h, w): ``(B, h, w)``."""
    # float32 holds every integer of a label exactly; nearest needs a floating type.
    return F.interpolate(label[:, None].float(), size=size, mode="nearest")[:, 0].long()


def contrast_schedule(iteration: int, max_iter: int, start_iter: int, multiplier: float) -> float:
    """Weight of the contrast at an iteration (the published ramp-down).

    ``exp(multiplier * ((t + 1) / max_iter)^2)`` from ``start_iter`` on, and 0 before it and at the
    last iteration; a multiplier of 0 keeps 1 from ``start_iter`` to the end.
    """
    if iteration < start_iter:
        return 0.0
    if multiplier == 0:
        return 1.0
    if iteration >= max_iter - 1:
        return 0.0
    return math.exp(multiplier * ((iteration + 1) / max_iter) ** 2)


class PrototypeContrast(nn.Module):
    """Pull each labelled pixel to its class's prototype, push it from the others.

    Args:
        temperature: divides the scores.
        kl_weight: weight of the divergence of the pixels' Gaussians from the standard one.
        ignore_label: label of pixels that take no part.
    """

    def __init__(self, temperature: float, kl_weight: float, ignore_label: int = 255):
        super().__init__()
        self.temperature = temperature
        self.kl_weight = kl_weight
        self.ignore_label = ignore_label

    def forward(
        self,
        mean: Tensor,
        log_var: Tensor,
        label: Tensor,
        prototypes_mean: Tensor,
        prototypes_log_var: Tensor,
        seen: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The two losses (paper, equations 10 and 11), before the schedule's weight.

        Args:
            mean, log_var: ``(B, D, h, w)`` of the pixels.
            label: ``(B, H, W)`` train IDs or the ignore label, resized to the nearest.
            prototypes_mean, prototypes_log_var: ``(C, D)``, without gradient.
            seen: ``(C,)`` bool, the classes that have a prototype; None: all. The others leave the
                softmax, and pixels labelled with one are dropped.

        Returns:
            "loss_contrast": cross-entropy of the scores over the prototypes, the mean over the
            classes present of the mean over their pixels; "loss_kl": weighted sum over pixels and
            dimensions. Both are 0, with a zero gradient, where nothing is labelled.
        """
        num_classes = len(prototypes_mean)
        label = resize_labels(label, mean.shape[-2:]).flatten()
        if seen is None:
            seen = torch.ones(num_classes, dtype=torch.bool, device=label.device)
        in_space = (label != self.ignore_label) & (label < num_classes)
        used = in_space & seen[label.where(in_space, 0)]
        label = label[used]
        mean = mean.movedim(1, -1).flatten(0, 2)[used].float()
        log_var = log_var.movedim(1, -1).flatten(0, 2)[used].float()

        scores = mutual_likelihood_score(
            mean, log_var, prototypes_mean.detach(), prototypes_log_var.detach()
        )
        logits = (scores / self.temperature).masked_fill(~seen, -torch.inf)
        pixels = torch.bincount(label, minlength=num_classes)
        present = (pixels > 0).sum().clamp(min=1)
        weight = 1 / (present * pixels[label])
        contrast = (weight * F.cross_entropy(logits, label, reduction="none")).sum()
        divergence = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum()
        return {"loss_contrast": contrast, "loss_kl": self.kl_weight * divergence}
