"""From class scores to the map of the highest ones, the slow part of evaluating large images."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

__all__ = ["class_map"]


def class_map(scores: Tensor) -> np.ndarray:
    """The class of the highest score of each pixel, the first one of equals.

    Args:
        scores: ``(C, H, W)`` floating point, C at most 256.

    Returns:
        ``(H, W)`` uint8.

    Raises:
        ValueError: there are more classes than a uint8 can hold.
    """
    if len(scores) > 256:
        raise ValueError(f"a class map has 8 bits a pixel, too few for {len(scores)} classes")
    if scores.device.type != "cpu":
        return scores.argmax(0).byte().cpu().numpy()
    # A running maximum reads the scores in the order they lie in; argmax over the first dimension
    # is three times (NumPy) to nine times (PyTorch) as slow on one core.
    planes = scores.float().numpy()
    best = planes[0].copy()
    classes = np.zeros(best.shape, np.uint8)
    for train_id in range(1, len(planes)):
        higher = cv2.compare(planes[train_id], best, cv2.CMP_GT)
        cv2.max(best, planes[train_id], dst=best)
        cv2.max(classes, cv2.bitwise_and(higher, train_id), dst=classes)
    return classes
