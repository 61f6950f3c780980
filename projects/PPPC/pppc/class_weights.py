"""Weights of the classes in the loss, from how frequent they are."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import Tensor

from .errors import InputError

__all__ = ["build_class_weights", "log_frequency_class_weights"]


def log_frequency_class_weights(frequencies: Tensor, spread: float) -> Tensor:
    """Rare classes above 1, frequent ones below: ``1 - spread z``, z the standardised log frequency.

    The published weights for Dark Zurich (0.05 in training, 0.16 for the test split).

    Args:
        frequencies: ``(C,)`` shares or counts of pixels, above 0.
        spread: standard deviation of the weights, the unbiased estimate over the classes.

    Raises:
        InputError: a class has no pixel.
    """
    if not (frequencies > 0).all():
        absent = torch.nonzero(~(frequencies > 0)).flatten().tolist()
        raise InputError(f"class weights need pixels of every class; there are none of {absent}")
    log_frequency = frequencies.log()
    std, mean = torch.std_mean(log_frequency)
    return 1 - spread * (log_frequency - mean) / std


def build_class_weights(cfg: CfgNode, spread: float) -> Tensor | None:
    """The weights of PPPC.CLASS_WEIGHTS.FREQUENCIES, ``(C,)``; None where the spread is 0.

    Raises:
        InputError: there is not one frequency for each class.
    """
    if spread == 0:
        return None
    frequencies = torch.tensor(cfg.PPPC.CLASS_WEIGHTS.FREQUENCIES)
    if len(frequencies) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        raise InputError(
            f"PPPC.CLASS_WEIGHTS.FREQUENCIES has {len(frequencies)} numbers, the model "
            f"{cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES} classes: give one of each class, or set "
            "TRAIN_SPREAD and TEST_SPREAD beside it 0"
        )
    return log_frequency_class_weights(frequencies, spread)
