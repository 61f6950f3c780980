"""Diagonal Gaussians: scores between two, and the product of many.

Shapes: N pixels, C prototypes, D dimensions. Variances are given by their logarithms.

Every score takes ``(mean_a (N, D), log_var_a (N, D), mean_b (C, D), log_var_b (C, D))``, normalises
the means to unit length, and returns ``(N, C)`` float32, higher where two Gaussians are closer.
Those that are divergences are negated. Beside the mutual likelihood score they are the ones that
the paper (arXiv 2409.18543) compares it with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .blocks import blocks_of_rows

__all__ = [
    "SCORES",
    "bhattacharyya_score",
    "cosine_score",
    "jensen_shannon_score",
    "kullback_leibler_score",
    "mutual_likelihood_score",
    "product_of_gaussians",
    "wasserstein_score",
]

EPSILON = 1e-6  # the published guard of the Bhattacharyya distance's logarithm


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
    prototypes = _unit_mean_and_variance(mean_b.float(), log_var_b.float())
    return _Scores.apply(mean_a.float(), log_var_a.float(), *prototypes)


class _Scores(torch.autograd.Function):
    """The scores, some pixels and one prototype at a time.

    The backward pass computes the terms again: kept for autograd, they would be C times ``(N, D)``,
    gigabytes for the pixels of one image.
    """

    @staticmethod
    def forward(ctx, mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, var_b: Tensor) -> Tensor:
        ctx.save_for_backward(mean_a, log_var_a, mean_b, var_b)
        scores = mean_a.new_empty(len(mean_a), len(mean_b))
        for rows in blocks_of_rows(mean_a):
            pixel_mean, pixel_var = _unit_mean_and_variance(mean_a[rows], log_var_a[rows])
            distance, total, log_total = (torch.empty_like(pixel_mean) for _ in range(3))
            for c, (mean, var) in enumerate(zip(mean_b, var_b)):
                torch.sub(pixel_mean, mean, out=distance).square_()
                torch.add(pixel_var, var, out=total)
                torch.log(total, out=log_total).addcdiv_(distance, total)
                scores[rows, c] = log_total.mean(dim=-1)
        return scores.mul_(-0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_scores: Tensor) -> tuple[Tensor, ...]:
        mean_a, log_var_a, mean_b, var_b = inputs = ctx.saved_tensors
        grads = [torch.zeros_like(tensor) for tensor in inputs]
        prototypes_too = any(ctx.needs_input_grad[2:])
        grad_scores = grad_scores / mean_a.shape[1]
        for rows in blocks_of_rows(mean_a):
            block = [tensor[rows].detach().requires_grad_() for tensor in (mean_a, log_var_a)]
            with torch.enable_grad():
                gaussian = _unit_mean_and_variance(*block)
            pixel_mean, pixel_var = (tensor.detach() for tensor in gaussian)
            gaussian_grads = [torch.zeros_like(pixel_mean) for _ in range(2)]
            pull, precision, grad_var = (torch.empty_like(pixel_mean) for _ in range(3))
            for c, (mean, var) in enumerate(zip(mean_b, var_b)):
                grad = grad_scores[rows, c, None]
                torch.add(pixel_var, var, out=precision).reciprocal_()
                torch.sub(pixel_mean, mean, out=pull).mul_(precision)
                torch.square(pull, out=grad_var).sub_(precision)
                gaussian_grads[0].addcmul_(pull, grad, value=-1)
                gaussian_grads[1].addcmul_(grad_var, grad, value=0.5)
                if prototypes_too:
                    grads[2][c] += pull.mul_(grad).sum(dim=0)
                    grads[3][c] += grad_var.mul_(grad / 2).sum(dim=0)
            block_grads = torch.autograd.grad(gaussian, block, gaussian_grads)
            for whole, part in zip(grads, block_grads):
                whole[rows] = part
        return tuple(grads)


def _unit_mean_and_variance(mean: Tensor, log_var: Tensor) -> tuple[Tensor, Tensor]:
    return F.normalize(mean, dim=-1), log_var.exp()


def _by_prototype(
    term: Callable[[Tensor, Tensor, Tensor], Tensor],
    mean_a: Tensor,
    log_var_a: Tensor,
    mean_b: Tensor,
    log_var_b: Tensor,
) -> Tensor:
    """Minus the mean over D of ``term(squared distance, var_a, var_b)``, ``(N, C)``.

    One prototype at a time, its ``(N, D)`` terms computed again in the backward pass, as in
    :class:`_Scores`.
    """
    mean_a, var_a = _unit_mean_and_variance(mean_a.float(), log_var_a.float())
    mean_b, var_b = _unit_mean_and_variance(mean_b.float(), log_var_b.float())

    def column(mean: Tensor, var: Tensor) -> Tensor:
        return -term((mean_a - mean).square(), var_a, var).mean(dim=-1)

    columns = [checkpoint(column, mean, var, use_reentrant=False) for mean, var in zip(mean_b, var_b)]
    return torch.stack(columns, dim=-1)


def bhattacharyya_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """Minus the Bhattacharyya distance, up to a constant (log 2 / 2 a dimension) as published.

    ``-mean_d [(a_d - b_d)^2 / (4 (va + vb)) - 1/2 log(sqrt(va vb) / (va + vb))]``.
    """

    def term(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
        total = var_a + var_b
        geometric_mean = ((var_a + EPSILON) * (var_b + EPSILON)).sqrt()
        return 0.25 * distance / total - 0.5 * (geometric_mean / total).log()

    return _by_prototype(term, mean_a, log_var_a, mean_b, log_var_b)


def wasserstein_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """Minus the squared 2-Wasserstein distance: ``-mean_d [(a - b)^2 + (sqrt va - sqrt vb)^2]``.

    The published code forgets the second square and one of the roots; it never calls it.
    """

    def term(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
        return distance + (var_a.sqrt() - var_b.sqrt()).square()

    return _by_prototype(term, mean_a, log_var_a, mean_b, log_var_b)


def kullback_leibler_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """Minus KL(a || b), up to a constant (1/2 a dimension) as published.

    ``-1/2 mean_d [log(vb / va) + va / vb + (a - b)^2 / vb]``.
    """

    def term(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
        return 0.5 * (var_b.log() - var_a.log() + (var_a + distance) / var_b)

    return _by_prototype(term, mean_a, log_var_a, mean_b, log_var_b)


def jensen_shannon_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """Minus the mean of KL(a || b) and KL(b || a), up to a constant, as published.

    The published name; it is half of Jeffreys' divergence, since that of Jensen and Shannon has no
    closed form for Gaussians.
    """

    def term(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
        return 0.25 * ((var_a + distance) / var_b + (var_b + distance) / var_a)

    return _by_prototype(term, mean_a, log_var_a, mean_b, log_var_b)


def cosine_score(mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor) -> Tensor:
    """Cosine of the means, whatever the variances: the score of embeddings that are points."""
    return F.normalize(mean_a.float(), dim=-1) @ F.normalize(mean_b.float(), dim=-1).T


# By the names that PPPC.CONTRAST.SCORE takes.
SCORES = {
    "mutual_likelihood": mutual_likelihood_score,
    "bhattacharyya": bhattacharyya_score,
    "wasserstein": wasserstein_score,
    "kullback_leibler": kullback_leibler_score,
    "jensen_shannon": jensen_shannon_score,
    "cosine": cosine_score,
}


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
