"""From class scores to the map of the highest ones, the slow part of evaluating large images."""

import cv2
import numpy as np
from torch import Tensor

from ..errors import InputError


def class_map(scores: Tensor, file: str) -> np.ndarray:
    """The class of the highest score of each pixel, the first one of equals: ``(H, W)`` uint8.

    Args:
        scores: ``(C, H, W)`` floating point, C at most 256.
        file: the image that they are of, for the message of an error.

    Raises:
        InputError: a score is NaN, or the highest one of a pixel infinite: they tell no class.
    """
    if len(scores) > 256:
        raise ValueError(f"a class map has 8 bits a pixel, too few for {len(scores)} classes")
    if scores.device.type != "cpu":
        best, classes = scores.max(0)  # NaN where any score is NaN
        _check_finite(bool(best.isfinite().all()), file)
        return classes.byte().cpu().numpy()
    # A running maximum reads the scores in the order they lie in; argmax over the first dimension
    # is three times (NumPy) to nine times (PyTorch) as slow on one core.
    scores = scores.float()
    planes = scores.numpy()
    best = planes[0].copy()
    classes = np.zeros(best.shape, np.uint8)
    for train_id in range(1, len(planes)):
        higher = cv2.compare(planes[train_id], best, cv2.CMP_GT)
        cv2.max(best, planes[train_id], dst=best)
        cv2.max(classes, cv2.bitwise_and(higher, train_id), dst=classes)
    # A comparison with NaN is false, so `best` need not hold it; a sum does.
    _check_finite(np.isfinite(best).all() and not scores.sum().isnan(), file)
    return classes


def _check_finite(finite: bool, file: str) -> None:
    if not finite:
        raise InputError(
            f"{file}: the network's scores are NaN or infinite, so they tell no class. Its weights "
            "(MODEL.WEIGHTS, or the run's checkpoint) are of a training that diverged: use an "
            "earlier checkpoint"
        )


def resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map ``(h, w)`` of classes or numbers at (height, width) ``size``, by the nearest pixel."""
    if values.shape == tuple(size):
        return values
    return cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
