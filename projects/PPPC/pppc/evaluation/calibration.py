"""Whether probabilities are what they say, and whether uncertainty tells errors, by the usual measures.

Shapes: P pixels. All measures are shares, but for the negative log-likelihood.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np

BINS = 15


class Bins(NamedTuple):
    """The bins of a reliability diagram that hold pixels, ``(B,)`` each."""

    share: np.ndarray  # of all pixels
    confidence: np.ndarray  # mean
    accuracy: np.ndarray


def reliability(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, equal_mass: bool = False
) -> Bins:
    """What is right of the pixels of each confidence, see :func:`calibration_error`."""
    if equal_mass:
        order = np.argsort(confidence, kind="stable")
        parts = np.array_split(order, bins)
    else:
        index = np.ceil(confidence * bins).astype(int).clip(1, bins)
        parts = [np.flatnonzero(index == number) for number in range(1, bins + 1)]
    rows = [
        (len(part) / len(right), confidence[part].mean(dtype=np.float64), right[part].mean())
        for part in parts
        if len(part)
    ]
    return Bins(*np.array(rows).reshape(-1, 3).T)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Mean distance of a bin's share of right pixels from its mean confidence, by the bins' sizes.

    The expected calibration error (ECE, Guo et al., arXiv 1706.04599); with ``equal_mass`` the adaptive
    one (Nguyen and O'Connor, arXiv 1508.05154), whose bins have equally many pixels.

    Args:
        confidence: ``(P,)``, the probability of the predicted class.
        right: ``(P,)`` bool.

    Examples:
        >>> right = np.array([True, True, True, False])
        >>> round(calibration_error(np.array([0.9, 0.9, 0.5, 0.5]), right), 6)
        0.05
    """
    found = reliability(confidence, right, bins, equal_mass)
    return float((found.share * abs(found.accuracy - found.confidence)).sum())


def near_boundary(label: np.ndarray, num_classes: int, distance: int) -> np.ndarray:
    """Which pixels ``(H, W)`` bool have a pixel of another class within a square of ``distance`` around them.

    Args:
        label: ``(H, W)`` uint8; pixels that are not labeled make no boundary.

    Examples:
        >>> near_boundary(np.array([[0, 0, 0, 1, 255]], np.uint8), num_classes=2, distance=1)
        array([[False, False,  True,  True, False]])
    """
    labeled = label < num_classes
    square = np.ones((2 * distance + 1,) * 2, np.uint8)
    highest = cv2.dilate(np.where(labeled, label, 0), square)
    lowest = cv2.erode(np.where(labeled, label, 255), square)
    return labeled & (highest > lowest)


def _groups(uncertainty: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each uncertainty, from the lowest on, the numbers of pixels and of wrong ones, ``(G,)`` each."""
    order = np.argsort(uncertainty, kind="stable")
    _, size = np.unique(uncertainty[order], return_counts=True)
    errors = np.concatenate([[0], wrong[order].cumsum()])[np.concatenate([[0], size.cumsum()])]
    return size, np.diff(errors)


def risk_coverage(uncertainty: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The share of errors of the 1, 2, ..., P pixels that are left, ``(P,)``, see :func:`error_detection`.

    Examples:
        >>> risk_coverage(np.array([0.1, 0.5, 0.2]), np.array([False, True, False]))
        array([0.        , 0.        , 0.33333333])
    """
    return _risk(*_groups(uncertainty, wrong))


def _risk(size: np.ndarray, errors: np.ndarray) -> np.ndarray:
    expected = np.repeat(errors / size, size).cumsum()
    return expected / np.arange(1, len(expected) + 1)


def error_detection(uncertainty: np.ndarray, wrong: np.ndarray) -> Mapping[str, float]:
    """How well an uncertainty tells wrong pixels from right ones.

    Pixels of equal uncertainty are rejected together, so each leaves as many errors as its group has on
    average.

    Args:
        uncertainty: ``(P,)``.
        wrong: ``(P,)`` bool.

    Returns:
        The measures by name. Where all pixels are right, or wrong, the first three are NaN.

        - "AUROC": the probability that a wrong pixel is more uncertain than a right one, ties counting
          half; 0.5 for an uncertainty that knows nothing.
        - "AUPR-error": average precision of finding wrong pixels.
        - "FPR95": of the wrong pixels the share that is as certain as 95 % of the right ones.
        - "AURC": mean share of errors of what is left while the most uncertain pixels are rejected one by
          one (Geifman and El-Yaniv, arXiv 1805.08206); "E-AURC": above a perfect uncertainty's.
        - "AUGRC": mean share of pixels that are both left and wrong (Traub et al., arXiv 2407.01032).
        - "coverage-5": the largest share of pixels that can be left with 5 % errors at most.
    """
    size, in_group = _groups(uncertainty, wrong)
    ends, errors = size.cumsum(), in_group.cumsum()
    number, all_wrong = len(wrong), int(errors[-1])
    all_right = number - all_wrong
    left = np.arange(1, number + 1)
    risk = _risk(size, in_group)
    perfect = np.maximum(left - all_right, 0) / left
    bearable = ends[errors <= 0.05 * ends]
    found = {
        "AUROC": math.nan,
        "AUPR-error": math.nan,
        "FPR95": math.nan,
        "AURC": float(risk.mean()),
        "E-AURC": float((risk - perfect).mean()),
        "AUGRC": float((risk * left).mean() / number),
        "coverage-5": float(bearable.max(initial=0) / number),
    }
    if all_wrong and all_right:
        right_in_group = size - in_group
        rights = right_in_group.cumsum()
        found["AUROC"] = float(
            (in_group * (rights - right_in_group / 2)).sum() / (all_wrong * all_right)
        )
        # From the most uncertain on.
        recalled = in_group[::-1].cumsum()
        precision = recalled / size[::-1].cumsum()
        found["AUPR-error"] = float((in_group[::-1] * precision).sum() / all_wrong)
        accepted = np.searchsorted(rights, 0.95 * all_right)
        found["FPR95"] = float(errors[accepted] / all_wrong)
    return found
