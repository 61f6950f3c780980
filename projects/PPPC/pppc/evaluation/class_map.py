"""From class scores to the map of the highest ones, the slow part of evaluating large images."""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def class_map(scores: Tensor, file: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """The class of the highest score of each pixel, the first one of equals: ``(H, W)`` uint8.

    Args:
        scores: ``(C, h, w)`` floating point, C at most 256.
        file: the image that they are of, for the message of an error.
        size: (H, W), to which the scores are resized bilinearly, a class at a time, so that they never
            take more memory than two classes do; None: theirs.

    Raises:
        InputError: a score is NaN, or the highest one of a pixel infinite: they tell no class.
    """
    if len(scores) > 256:
        raise ValueError(f"a class map has 8 bits a pixel, too few for {len(scores)} classes")
    size = tuple(scores.shape[1:] if size is None else size)
    planes = (_resized_bilinearly(plane.float(), size) for plane in scores)
    best, classes = _highest_on_cpu(planes) if scores.device.type == "cpu" else _highest(planes)
    # A comparison with NaN is false, so `best` need not hold it; a sum does.
    _check_finite(bool(best.isfinite().all()) and not scores.sum().isnan(), file)
    return classes


def _resized_bilinearly(plane: Tensor, size: tuple[int, int]) -> Tensor:
    if plane.shape == size:
        return plane
    return F.interpolate(plane[None, None], size, mode="bilinear", align_corners=False)[0, 0]


# A running maximum reads the scores in the order they lie in; argmax over the first dimension is three
# times (NumPy) to nine times (PyTorch) as slow on one core, and PyTorch's own operations twice as OpenCV's.


def _highest_on_cpu(planes: Iterator[Tensor]) -> tuple[Tensor, np.ndarray]:
    best = next(planes).numpy().copy()
    classes = np.zeros(best.shape, np.uint8)
    for train_id, plane in enumerate(planes, 1):
        higher = cv2.compare(plane.numpy(), best, cv2.CMP_GT)
        cv2.max(best, plane.numpy(), dst=best)
        cv2.max(classes, cv2.bitwise_and(higher, train_id), dst=classes)
    return torch.from_numpy(best), classes


def _highest(planes: Iterator[Tensor]) -> tuple[Tensor, np.ndarray]:
    best = next(planes)
    classes = torch.zeros_like(best, dtype=torch.uint8)
    for train_id, plane in enumerate(planes, 1):
        classes = torch.where(plane > best, train_id, classes)
        best = torch.maximum(best, plane)
    return best, classes.cpu().numpy()


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
