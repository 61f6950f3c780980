"""Diagonal Gaussians: the score between two, and the product of many.

Shapes: N pixels, C prototypes, D dimensions. Variances are given by their logarithms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["mutual_likelihood_score", "product_of_gaussians"]


def mutual_likelihood_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """How likely two Gaussians stand for the same point (arXiv 2409.18543, after PRCL).

    ``-1/2 mean_d [(a_d - b_d)^2 / (va_d + vb_d) + log(va_d + vb_d)]`` with means of unit length:
    the larger the variances, the less a difference of the means matters.

    Args:
        mean_a, log_var_a: ``(N, D)``; the means are L2-normalised here.
        mean_b, log_var_b: ``(C, D)``, likewise.

    Returns:
        ``(N, C)`` float32.
    """
    return _Scores.apply(
        F.normalize(mean_a.float(), dim=-1),
        log_var_a.float().exp(),
        F.normalize(mean_b.float(), dim=-1),
        log_var_b.float().exp(),
    )


class _Scores(torch.autograd.Function):
    """The scores, one prototype at a time.

    The backward pass computes the terms again: kept for autograd, they would be C times ``(N, D)``,
    gigabytes for the pixels of one image.
    """

    @staticmethod
    def forward(ctx, mean_a: Tensor, var_a: Tensor, mean_b: Tensor, var_b: Tensor) -> Tensor:
        ctx.save_for_backward(mean_a, var_a, mean_b, var_b)
        scores = []
        for mean, var in zip(mean_b, var_b):
            total = var_a + var
            distance = (mean_a - mean).square_().div_(total)
            scores.append(distance.add_(total.log_()).mean(dim=-1))
        return -0.5 * torch.stack(scores, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_scores: Tensor) -> tuple[Tensor, ...]:
        mean_a, var_a, mean_b, var_b = inputs = ctx.saved_tensors
        grads = grad_mean_a, grad_var_a, grad_mean_b, grad_var_b = [
            torch.zeros_like(tensor) for tensor in inputs
        ]
        grad_scores = grad_scores / mean_a.shape[1]
        for c, (mean, var) in enumerate(zip(mean_b, var_b)):
            grad = grad_scores[:, c, None]
            precision = (var_a + var).reciprocal_()
            pull = (mean_a - mean).mul_(precision)
            grad_var = pull.square().sub_(precision).mul_(grad / 2)
            pull.mul_(grad)
            grad_mean_a -= pull
            grad_mean_b[c] = pull.sum(dim=0)
            grad_var_a += grad_var
            grad_var_b[c] = grad_var.sum(dim=0)
        return tuple(grads)


def product_of_gaussians(mean: Tensor, log_var: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """The normalised product of Gaussians along ``dim``: means weighted by precision.

    Args:
        mean, log_var: of the same shape, for example ``(N, D)``.
        dim: the dimension along which to multiply.

    Returns:
        mean and log-variance (minus the log of the summed precisions), both without ``dim``,
        float32.
    """
    log_precision = -log_var.float()
    weight = torch.softmax(log_precision, dim=dim)
    return (weight * mean.float()).sum(dim), -torch.logsumexp(log_precision, dim=dim)
