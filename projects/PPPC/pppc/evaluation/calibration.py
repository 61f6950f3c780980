"""Whether probabilities are what they say, and whether uncertainty tells errors, by the usual measures.

Shapes: P pixels. All measures are shares, but for the negative log-likelihood.
"""

import math
from collections.abc import Mapping

import numpy as np

BINS = 15


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
    if equal_mass:
        order = np.argsort(confidence, kind="stable")
        parts = np.array_split(order, bins)
    else:
        index = np.ceil(confidence * bins).astype(int).clip(1, bins)
        parts = [np.flatnonzero(index == number) for number in range(1, bins + 1)]
    errors = [
        len(part) * abs(right[part].mean() - confidence[part].astype(np.float64).mean())
        for part in parts
        if len(part)
    ]
    return float(sum(errors) / len(confidence))


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
    order = np.argsort(uncertainty, kind="stable")
    _, size = np.unique(uncertainty[order], return_counts=True)
    ends = size.cumsum()
    errors = np.concatenate([[0], wrong[order].cumsum()])[np.concatenate([[0], ends])]
    in_group = np.diff(errors)
    left, number = np.arange(1, len(wrong) + 1), len(wrong)
    expected = np.repeat(in_group / size, size).cumsum()  # errors among what is left
    perfect = np.maximum(left - (number - errors[-1]), 0)
    aurc = float((expected / left).mean())
    bearable = ends[errors[1:] <= 0.05 * ends]
    found = {
        "AUROC": math.nan,
        "AUPR-error": math.nan,
        "FPR95": math.nan,
        "AURC": aurc,
        "E-AURC": aurc - float((perfect / left).mean()),
        "AUGRC": float((expected / number).mean()),
        "coverage-5": float(bearable.max(initial=0) / number),
    }
    all_wrong, all_right = int(errors[-1]), number - int(errors[-1])
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
        found["FPR95"] = float(errors[1:][accepted] / all_wrong)
    return found
