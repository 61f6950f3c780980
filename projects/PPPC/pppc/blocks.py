"""Functions of rows, computed some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["blocks_of_rows", "by_rows"]

BLOCK_ELEMENTS = {"cpu": 2**18}  # of a block of an input; on other devices 2**24


def blocks_of_rows(tensor: Tensor) -> Iterator[slice]:
    """Slices that cover the rows of ``(N, D)``; an empty one where there are none.

    What is computed of a block so stays in a CPU's cache.
    """
    size = max(1, BLOCK_ELEMENTS.get(tensor.device.type, 2**24) // tensor.shape[1])
    for start in range(0, max(1, len(tensor)), size):
        yield slice(start, min(start + size, len(tensor)))


def by_rows(
    function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
) -> tuple[Tensor, ...]:
    """``function(*tensors)``, some rows at a time, and again in the backward pass.

    Only the inputs are kept, and each operation on the way needs memory for one block alone.

    Args:
        function: of tensors ``(N, ...)`` to tensors ``(N, ...)``; each row of these comes from the
            same row of those alone. Other tensors that it uses get no gradient.
        tensors: ``(N, D)`` each.
    """
    return _ByRows.apply(function, *tensors)


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function: Callable, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        blocks = [function(*(tensor[rows] for tensor in tensors)) for rows in blocks_of_rows(tensors[0])]
        return tuple(torch.cat(blocks_of_one) for blocks_of_one in zip(*blocks))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        tensor_grads = [torch.empty_like(tensor) for tensor in tensors]
        for rows in blocks_of_rows(tensors[0]):
            inputs = [tensor[rows].detach().requires_grad_() for tensor in tensors]
            with torch.enable_grad():
                outputs = ctx.function(*inputs)
            block_grads = torch.autograd.grad(outputs, inputs, [grad[rows] for grad in grads])
            for whole, block in zip(tensor_grads, block_grads):
                whole[rows] = block
        return None, *tensor_grads
