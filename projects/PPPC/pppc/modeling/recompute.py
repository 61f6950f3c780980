"""Less memory in training: results are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from .decode_heads import SeparableConv

__all__ = ["recompute_blocks", "recomputed"]

RECOMPUTE = ("none", "cheap", "all")

# "cheap" keeps what took more multiplications per number than this. The last convolutions of
# ResNet-101's blocks and the linear maps of MiT's first two stages take no more: their results are
# large, and computing all of them again takes a tenth of the forward pass.
COSTLY = 256
aten = torch.ops.aten
ATTENTION = {
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}


def recomputed(function: Callable[..., Tensor], *inputs: Tensor, module: nn.Module) -> Tensor:
    """``function(*inputs)``, of which only the inputs are kept for the backward pass.

    Args:
        function: tensors to a tensor.
        inputs: of the function.
        module: whose BatchNorm the function uses; its running statistics see the batch once.
    """
    return checkpoint(
        function, *inputs, use_reentrant=False, context_fn=partial(_contexts, module, "all")
    )


def recompute_blocks(network: nn.Module, what: str) -> None:
    """Let the blocks of a network's encoder and decoder compute again, in place.

    Values and gradients stay the same to the bit, the names of the parameters too.

    Args:
        network: any module with an encoder's or a decoder's blocks in it.
        what: "none"; "cheap", all but costly matrix products, convolutions and attention; or "all".

    Raises:
        ValueError: ``what`` is none of these.
    """
    if what not in RECOMPUTE:
        raise ValueError(f"MODEL.RECOMPUTE is {what!r}: use one of {RECOMPUTE}")
    if what == "none":
        return
    blocks = set(_blocks(network))
    for module in network.modules():
        # Activations in place would change results that are kept.
        if getattr(module, "inplace", False):
            module.inplace = False
    apply_activation_checkpointing(
        network,
        checkpoint_wrapper_fn=lambda block: checkpoint_wrapper(
            block, context_fn=partial(_contexts, block, what)
        ),
        check_fn=lambda module: module in blocks,
    )


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Separable convolutions, and what follows one another in an encoder's stages."""
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
    return forward, _statistics_unchanged(module, repetition)


def _keep_what_is_costly(context, operation, *arguments, **options) -> CheckpointPolicy:
    if operation in ATTENTION or _multiplications(operation, arguments) > COSTLY:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _multiplications(operation: Callable, arguments: tuple) -> int:
    """How many an operation does for each number of its result; 0 where that is not known."""
    if operation == aten.convolution.default:
        weight = arguments[1]
        return weight[0].numel()
    if operation in (aten.mm.default, aten.addmm.default):
        matrix = arguments[-2]
        return matrix.shape[-1]
    return 0


@contextmanager
def _statistics_unchanged(module: nn.Module, within: AbstractContextManager) -> Iterator[None]:
    """For a repetition: BatchNorm's running statistics have seen this batch already."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    state = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, num_batches) in zip(norms, state):
        norm.momentum = 0.0
        norm.num_batches_tracked = None if num_batches is None else num_batches.clone()
    try:
        with within:
            yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, state):
            norm.momentum = momentum
            norm.num_batches_tracked = num_batches
