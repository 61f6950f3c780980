"""Which images would tell a model most if they were labeled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..prediction import Predictor

SMALLEST = 0.001  # share of an image's pixels from which on a predicted class counts


@dataclass(frozen=True, eq=False)
class RankedImage:
    """How unsure a model is of an image.

    Attributes:
        image: the file.
        score: the mean over the classes, in [0, 1]; high ones would tell most.
        by_class: the mean uncertainty of the pixels of each predicted class, ``(C,)``; NaN for the others.
    """

    image: str
    score: float
    by_class: np.ndarray


def class_means(labels: np.ndarray, uncertainty: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean uncertainty of each predicted class, ``(C,)``; NaN for one with hardly a pixel.

    Args:
        labels: predicted, ``(H, W)``.
        uncertainty: ``(H, W)``.
        num_classes: C.

    Examples:
        >>> class_means(np.array([[0, 0, 2]]), np.array([[0.25, 0.75, 1.0]]), 3)
        array([0.5, nan, 1. ])
    """
    pixels = np.bincount(labels.ravel(), minlength=num_classes)
    sums = np.bincount(labels.ravel(), uncertainty.ravel(), num_classes)
    counted = pixels >= max(1, SMALLEST * labels.size)
    return np.divide(sums, pixels, out=np.full(num_classes, np.nan), where=counted)


def rank_images(model: Predictor, images: Sequence[str]) -> list[RankedImage]:
    """Images, those first that would tell most.

    The uncertainty of a pixel is the probability that its class is another one, by the softmax. Its mean
    over an image follows the large classes, and ranks little better than chance; each predicted class
    counts alike instead (the class-balanced mean of arXiv 2603.29941).

    Args:
        model: to be improved.
        images: files.

    Raises:
        InputError: a file can't be read.
    """
    ranked = []
    for image in tqdm(images, desc="ranking", unit="image", disable=None):
        seen = model.predict(model.read_reduced(image))
        means = class_means(seen.labels, 1 - seen.confidence, len(model.names))
        ranked.append(RankedImage(image, float(np.nanmean(means)), means))
    return sorted(ranked, key=lambda one: (-one.score, one.image))
