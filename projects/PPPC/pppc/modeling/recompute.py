"""Less memory in training: results are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from .decode_heads import SeparableConv

__all__ = ["recompute_blocks", "recomputed"]

# "cheap" keeps what took more multiplications per number than this. The last convolutions of the
# blocks of ResNet-101's first three stages take no more: they make the largest results of all.
COSTLY = 256
aten = torch.ops.aten
MATRIX_PRODUCTS = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
}  # fmt: skip
ATTENTION = {
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}


def recomputed(function: Callable[..., Tensor], *inputs: Tensor, module: nn.Module) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept for the backward pass.

    Args:
        function: tensors to a tensor; without Dropout or anything else drawn at random.
        inputs: of the function.
        module: whose BatchNorm the function uses; its running statistics see the batch once.
    """
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(_contexts, module, "all"),
    )


def recompute_blocks(network: nn.Module, what: str) -> None:
    """Let the blocks of a network's encoder and decoder compute again, in place.

    Values, gradients and the names of parameters stay the same. With "cheap" a graph can be gone
    through backward once only.

    Args:
        network: any module with an encoder's or a decoder's blocks in it.
        what: "none"; "cheap", all but costly matrix products, convolutions and attention; or "all".
    """
    if what == "none":
        return
    for module in network.modules():
        # Activations in place would change results that are kept.
        if getattr(module, "inplace", False):
            module.inplace = False
    for block in _blocks(network):
        block.forward = _RecomputedForward(block, what)


class _RecomputedForward:
    """In place of a block's forward: no module around it, so that no parameter changes its name."""

    def __init__(self, block: nn.Module, what: str):
        self.block = block
        self.what = what

    def __call__(self, *inputs: object, **options: object) -> Tensor:
        forward = partial(type(self.block).forward, self.block)
        contexts = partial(_contexts, self.block, self.what)
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Separable convolutions, and what else is made of parts and stands in a sequence or list."""
    in_sequence = isinstance(module, nn.Sequential | nn.ModuleList)
    for child in module.children():
        sequence = isinstance(child, nn.Sequential | nn.ModuleList)
        is_block = in_sequence and not sequence and any(True for _ in child.children())
        if is_block or isinstance(child, SeparableConv):
            yield child
        else:
            yield from _blocks(child)


def _contexts(
    module: nn.Module, what: str
) -> tuple[AbstractContextManager, AbstractContextManager]:
    """What a module's forward pass and its repetition run in."""
    forward, repetition = nullcontext(), nullcontext()
    if what == "cheap":
        forward, repetition = create_selective_checkpoint_contexts(_keep_what_is_costly)
    return forward, _StatisticsUnchanged(module, repetition)


def _keep_what_is_costly(context, operation, *arguments, **options) -> CheckpointPolicy:
    if operation in ATTENTION or _multiplications(operation, arguments) > COSTLY:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _multiplications(operation: Callable, arguments: tuple) -> int:
    """How many an operation does for each number of its result; 0 where that is not known."""
    if operation == aten.convolution.default:
        weight = arguments[1]
        return weight[0].numel()
    if operation in MATRIX_PRODUCTS:
        matrix = arguments[-2]
        return matrix.shape[-1]
    return 0


class _StatisticsUnchanged:
    """For a repetition: BatchNorm's running statistics have seen this batch already.

    Args:
        module: with the BatchNorms.
        within: a context to enter, too.
    """

    def __init__(self, module: nn.Module, within: AbstractContextManager):
        self.module = module
        self.within = within

    def __enter__(self) -> None:
        self.state = [
            (module, module.momentum, module.num_batches_tracked)
            for module in self.module.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        for norm, _, num_batches in self.state:
            norm.momentum = 0.0
            norm.num_batches_tracked = None if num_batches is None else num_batches.clone()
        self.within.__enter__()

    def __exit__(self, *exception: object) -> None:
        self.within.__exit__(*exception)
        for norm, momentum, num_batches in self.state:
            norm.momentum = momentum
            norm.num_batches_tracked = num_batches
