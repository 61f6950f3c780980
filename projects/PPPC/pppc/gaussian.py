"""Diagonal Gaussians: the score between two, and the product of many.

Shapes: N pixels, C prototypes, D dimensions. Variances are given by their logarithms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mutual_likelihood_score", "product_of_gaussians"]


def mutual_likelihood_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """How likely two Gaussians are the same point (paper, equation 9; PRCL, equation 3).

    ``-1/2 mean_d [(a_d - b_d)^2 / (va_d + vb_d) + log(va_d + vb_d)]`` with means of unit length:
    the larger the variances, the less a difference of the means matters.

    Args:
        mean_a, log_var_a: ``(N, D)``.
        mean_b, log_var_b: ``(C, D)``.

    Returns:
        ``(N, C)`` float32.
    """
    mean_a = F.normalize(mean_a.float(), dim=-1)
    mean_b = F.normalize(mean_b.float(), dim=-1)
    var_a, var_b = log_var_a.float().exp(), log_var_b.float().exp()
    # One prototype at a time: (N, D) tensors instead of one (N, C, D).
    scores = []
    for mean, var in zip(mean_b, var_b):
        total = var_a + var
        scores.append(((mean_a - mean).square() / total + total.log()).mean(-1))
    return -0.5 * torch.stack(scores, dim=-1)


def product_of_gaussians(mean: Tensor, log_var: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """The normalised product of Gaussians along ``dim`` (paper, equations 5 and 6).

    Args:
        mean, log_var: for example ``(N, D)``.
        dim: the dimension along which to multiply.

    Returns:
        precision-weighted mean and log-variance, both without ``dim``, float32.
    """
    log_precision = -log_var.float()
    log_var = -torch.logsumexp(log_precision, dim=dim)
    weight = torch.softmax(log_precision, dim=dim)
    return (weight * mean.float()).sum(dim), log_var
