"""Weights of the classes in the loss, from how frequent they are."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["log_frequency_class_weights"]


def log_frequency_class_weights(frequencies: Tensor, spread: float) -> Tensor:
    """Rare classes above 1, frequent ones below: ``1 - spread z``, z the standardised log frequency.

    The published weights for Dark Zurich (0.05 in training, 0.16 for the test split).

    Args:
        frequencies: ``(C,)`` shares or counts of pixels, above 0.
        spread: standard deviation of the weights, the unbiased estimate over the classes.

    Raises:
        ValueError: a class has no pixel.
    """
    if not (frequencies > 0).all():
        absent = torch.nonzero(~(frequencies > 0)).flatten().tolist()
        raise ValueError(f"class weights need pixels of every class; there are none of {absent}")
    log_frequency = frequencies.log()
    std, mean = torch.std_mean(log_frequency)
    return 1 - spread * (log_frequency - mean) / std
