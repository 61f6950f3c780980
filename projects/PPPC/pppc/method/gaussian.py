"""Scores between two diagonal Gaussians.

Shapes: N pixels, C prototypes, D dimensions. Variances are given by their logarithms.

Every score takes ``(mean_a (N, D), log_var_a (N, D), mean_b (C, D), log_var_b (C, D))``, normalizes
the means to unit length, and returns ``(N, C)`` float32, higher where two Gaussians are closer.
Those that are divergences are negated. Beside the mutual likelihood score they are the ones that
the paper (arXiv 2409.18543) compares it with.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

BLOCK_ELEMENTS = {"cpu": 2**18}  # of a buffer; on other devices 2**24
EPSILON = 1e-6  # the published guard of the Bhattacharyya distance's logarithm


def mutual_likelihood_score(
    mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor
) -> Tensor:
    """How likely two Gaussians stand for the same point (arXiv 2409.18543, after PRCL).

    ``-1/2 mean_d [(a_d - b_d)^2 / (va_d + vb_d) + log(va_d + vb_d)]`` with means of unit length:
    the larger the variances, the less a difference of the means matters.

    Args:
        mean_a, log_var_a: ``(N, D)``; the means are L2-normalized here.
        mean_b, log_var_b: ``(C, D)``, likewise.

    Returns:
        ``(N, C)`` float32.

    Examples:
        >>> mean, log_var = torch.eye(2), torch.zeros(2, 2)  # two classes
        >>> mutual_likelihood_score(mean[:1], log_var[:1], mean, log_var)
        tensor([[-0.3466, -0.5966]])
        >>> mutual_likelihood_score(mean[:1], log_var[:1] + 2, mean, log_var)  # a less sure pixel
        tensor([[-1.0635, -1.1231]])
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        # An export takes no backward pass, and no blocks, whose number depends on the image.
        return _mutual_likelihood_plainly(mean_a, log_var_a, mean_b, log_var_b)
    return _Scores.apply(
        F.normalize(mean_a.float(), dim=-1),
        log_var_a.float().exp(),
        F.normalize(mean_b.float(), dim=-1),
        log_var_b.float().exp(),
    )


class _Scores(torch.autograd.Function):
    """The scores, some pixels and one prototype at a time.

    The backward pass computes the terms again: kept for autograd, they would be C times ``(N, D)``,
    gigabytes for the pixels of one image.
    """

    @staticmethod
    def forward(ctx, mean_a: Tensor, var_a: Tensor, mean_b: Tensor, var_b: Tensor) -> Tensor:
        ctx.save_for_backward(mean_a, var_a, mean_b, var_b)
        scores = mean_a.new_empty(len(mean_a), len(mean_b))
        for rows, (distance, total, log_total) in _in_blocks(mean_a, num_buffers=3):
            for c, (mean, var) in enumerate(zip(mean_b, var_b)):
                torch.sub(mean_a[rows], mean, out=distance).square_()
                torch.add(var_a[rows], var, out=total)
                torch.log(total, out=log_total).addcdiv_(distance, total)
                scores[rows, c] = log_total.mean(dim=-1)
        return scores.mul_(-0.5)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_scores: Tensor) -> tuple[Tensor, ...]:
        mean_a, var_a, mean_b, var_b = inputs = ctx.saved_tensors
        grads = grad_mean_a, grad_var_a, grad_mean_b, grad_var_b = [
            torch.zeros_like(tensor) for tensor in inputs
        ]
        prototypes_too = any(ctx.needs_input_grad[2:])
        grad_scores = grad_scores / mean_a.shape[1]
        for rows, (pull, precision, grad_var) in _in_blocks(mean_a, num_buffers=3):
            for c, (mean, var) in enumerate(zip(mean_b, var_b)):
                grad = grad_scores[rows, c, None]
                torch.add(var_a[rows], var, out=precision).reciprocal_()
                torch.sub(mean_a[rows], mean, out=pull).mul_(precision)
                torch.square(pull, out=grad_var).sub_(precision)
                grad_mean_a[rows].addcmul_(pull, grad, value=-1)
                grad_var_a[rows].addcmul_(grad_var, grad, value=0.5)
                if prototypes_too:
                    grad_mean_b[c] += pull.mul_(grad).sum(dim=0)
                    grad_var_b[c] += grad_var.mul_(grad / 2).sum(dim=0)
        return tuple(grads)


def _in_blocks(tensor: Tensor, num_buffers: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Slices that cover the rows of ``(N, D)``, each with buffers of its shape to compute in.

    On a CPU blocks stay in its cache, which takes half of the time of whole tensors.
    """
    size = max(1, BLOCK_ELEMENTS.get(tensor.device.type, 2**24) // tensor.shape[1])
    buffers = [torch.empty_like(tensor[:size]) for _ in range(num_buffers)]
    for start in range(0, len(tensor), size):
        rows = slice(start, min(start + size, len(tensor)))
        yield rows, [buffer[: rows.stop - start] for buffer in buffers]


Score = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _by_prototype(term: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Score:
    """The score that is minus the mean over D of ``term(squared distance, var_a, var_b)``.

    One prototype at a time, its ``(N, D)`` terms computed again in the backward pass, as in
    :class:`_Scores`.
    """

    def score(mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor) -> Tensor:
        mean_a, mean_b = F.normalize(mean_a.float(), dim=-1), F.normalize(mean_b.float(), dim=-1)
        var_a, var_b = log_var_a.float().exp(), log_var_b.float().exp()

        def column(mean: Tensor, var: Tensor) -> Tensor:
            return -term((mean_a - mean).square(), var_a, var).mean(dim=-1)

        prototypes = zip(mean_b, var_b)
        if torch.is_grad_enabled():
            columns = [checkpoint(column, *one, use_reentrant=False) for one in prototypes]
        else:
            columns = [column(*one) for one in prototypes]
        return torch.stack(columns, dim=-1)

    score.__name__, score.__qualname__, score.__doc__ = term.__name__, term.__name__, term.__doc__
    return score


@_by_prototype
def _mutual_likelihood_plainly(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
    """As :func:`mutual_likelihood_score`."""
    total = var_a + var_b
    return 0.5 * (distance / total + total.log())


@_by_prototype
def bhattacharyya_score(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
    """Minus the Bhattacharyya distance, up to a constant (log 2 / 2 a dimension) as published.

    ``-mean_d [(a_d - b_d)^2 / (4 (va + vb)) - 1/2 log(sqrt(va vb) / (va + vb))]``.

    Examples:
        >>> mean, log_var = torch.eye(2), torch.zeros(2, 2)  # two classes
        >>> bhattacharyya_score(mean[:1], log_var[:1], mean, log_var)
        tensor([[-0.3466, -0.4716]])
        >>> bhattacharyya_score(mean[:1], log_var[:1] + 2, mean, log_var)
        tensor([[-0.5635, -0.5933]])
    """
    total = var_a + var_b
    geometric_mean = ((var_a + EPSILON) * (var_b + EPSILON)).sqrt()
    return 0.25 * distance / total - 0.5 * (geometric_mean / total).log()


@_by_prototype
def wasserstein_score(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
    """Minus the squared 2-Wasserstein distance: ``-mean_d [(a - b)^2 + (sqrt va - sqrt vb)^2]``.

    The published code forgets the second square and one of the roots; it never calls it.

    Examples:
        >>> mean, log_var = torch.eye(2), torch.zeros(2, 2)  # two classes
        >>> wasserstein_score(mean[:1], log_var[:1], mean, log_var)
        tensor([[-0., -1.]])
        >>> wasserstein_score(mean[:1], log_var[:1] + 2, mean, log_var)
        tensor([[-2.9525, -3.9525]])
    """
    return distance + (var_a.sqrt() - var_b.sqrt()).square()


@_by_prototype
def kullback_leibler_score(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
    """Minus KL(a || b), up to a constant (1/2 a dimension) as published.

    ``-1/2 mean_d [log(vb / va) + va / vb + (a - b)^2 / vb]``.

    Examples:
        >>> mean, log_var = torch.eye(2), torch.zeros(2, 2)  # two classes
        >>> kullback_leibler_score(mean[:1], log_var[:1], mean, log_var)
        tensor([[-0.5000, -1.0000]])
        >>> kullback_leibler_score(mean[:1], log_var[:1] + 2, mean, log_var)
        tensor([[-2.6945, -3.1945]])
    """
    return 0.5 * (var_b.log() - var_a.log() + (var_a + distance) / var_b)


@_by_prototype
def jensen_shannon_score(distance: Tensor, var_a: Tensor, var_b: Tensor) -> Tensor:
    """Minus the mean of KL(a || b) and KL(b || a), up to a constant, as published.

    The published name; it is half of Jeffreys' divergence, since that of Jensen and Shannon has no
    closed form for Gaussians.

    Examples:
        >>> mean, log_var = torch.eye(2), torch.zeros(2, 2)  # two classes
        >>> jensen_shannon_score(mean[:1], log_var[:1], mean, log_var)
        tensor([[-0.5000, -1.0000]])
        >>> jensen_shannon_score(mean[:1], log_var[:1] + 2, mean, log_var)
        tensor([[-1.8811, -2.1649]])
    """
    return 0.25 * ((var_a + distance) / var_b + (var_b + distance) / var_a)


def cosine_score(mean_a: Tensor, log_var_a: Tensor, mean_b: Tensor, log_var_b: Tensor) -> Tensor:
    """Cosine of the means, whatever the variances: the score of embeddings that are points.

    Examples:
        >>> mean, any_variance = torch.eye(2), torch.zeros(2, 2)
        >>> cosine_score(mean[:1], any_variance[:1], mean, any_variance)
        tensor([[1., 0.]])
    """
    return F.normalize(mean_a.float(), dim=-1) @ F.normalize(mean_b.float(), dim=-1).T


#: By the names that configurations and :class:`PrototypeContrast` take.
SCORES = {
    "mutual_likelihood": mutual_likelihood_score,
    "bhattacharyya": bhattacharyya_score,
    "wasserstein": wasserstein_score,
    "kullback_leibler": kullback_leibler_score,
    "jensen_shannon": jensen_shannon_score,
    "cosine": cosine_score,
}
