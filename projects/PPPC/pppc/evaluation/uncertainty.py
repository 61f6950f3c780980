"""Does the uncertainty know where the model errs?

Shapes: P pixels.
"""

import logging
import math
from collections import OrderedDict

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from ..data.labels import LabelReader
from .class_map import resized

logger = logging.getLogger(__name__)

PIXELS_PER_IMAGE = 20_000  # enough for the third digit, and a large test set fits in memory


def error_auroc(uncertainty: np.ndarray, wrong: np.ndarray) -> float:
    """The probability that a wrong pixel is more uncertain than a right one, ties counting half.

    That is the area under the receiver operating characteristic of "the pixel is wrong".

    Args:
        uncertainty: ``(P,)``.
        wrong: ``(P,)`` bool.

    Returns:
        in [0, 1], 0.5 for an uncertainty that knows nothing; NaN where all are right, or wrong.
    """
    num_wrong = int(wrong.sum())
    num_right = len(wrong) - num_wrong
    if not num_wrong or not num_right:
        return math.nan
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    rank = (size.cumsum() - (size - 1) / 2)[group]  # from 1; equal values share their mean rank
    above = rank[wrong].sum() - num_wrong * (num_wrong + 1) / 2
    return float(above / (num_wrong * num_right))


def area_under_risk_coverage(uncertainty: np.ndarray, wrong: np.ndarray) -> float:
    """Mean error of what is left while the most uncertain pixels are rejected one by one.

    The area under the risk-coverage curve (AURC): the lower the better, the plain share of wrong
    pixels for an uncertainty that knows nothing. Pixels of equal uncertainty are rejected together,
    so each leaves as many errors as its group has on average.

    Args:
        uncertainty: ``(P,)``.
        wrong: ``(P,)`` bool.
    """
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    errors = np.bincount(group, weights=wrong)
    expected = np.repeat(errors / size, size)  # from the most certain pixel on
    return float((expected.cumsum() / np.arange(1, len(expected) + 1)).mean())


class UncertaintyEvaluator(DatasetEvaluator):
    """Compare the embedding's uncertainty with that of the predicted class probabilities.

    "prototypes" is the entropy of the classes by the scores with the prototypes, "variance" the
    embedding's mean log-variance, "confidence" and "entropy" are the prediction's. For predictions
    with "uncertainty" and "log_variance" beside "sem_seg" (TEST.UNCERTAINTY). Of a large image
    every n-th labeled pixel counts.

    Args:
        label_reader: reads the data set's labels as the model's classes.
    """

    def __init__(self, label_reader: LabelReader):
        self.label_reader = label_reader
        self.num_classes = label_reader.num_classes
        self.reset()

    def reset(self) -> None:
        self.wrong: list[np.ndarray] = []
        self.uncertainties: dict[str, list[np.ndarray]] = {
            name: [] for name in ("prototypes", "variance", "confidence", "entropy")
        }

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for given, output in zip(inputs, outputs):
            label = self.label_reader.label_of(given)
            label = resized(label, tuple(output["sem_seg"].shape[1:])).astype(np.int64)
            labeled = np.flatnonzero((label >= 0) & (label < self.num_classes))
            chosen = labeled[:: max(1, math.ceil(len(labeled) / PIXELS_PER_IMAGE))]
            probability = output["sem_seg"].flatten(1)[:, chosen].float().softmax(0)
            self.wrong.append(probability.argmax(0).cpu().numpy() != label.flat[chosen])
            for name, uncertainty in (
                ("prototypes", output["uncertainty"].flatten()[chosen]),
                ("variance", output["log_variance"].flatten()[chosen]),
                ("confidence", 1 - probability.amax(0)),
                ("entropy", -probability.xlogy(probability).sum(0)),
            ):
                self.uncertainties[name].append(uncertainty.float().cpu().numpy())

    def evaluate(self) -> OrderedDict | None:
        """Returns:
        ``{"uncertainty": {...}}`` in percent: of each uncertainty the AUROC of "the pixel is wrong"
        and the AURC, beside that of a perfect one and of none. None in the
        processes that are not the first.
        """
        gathered = comm.gather((self.wrong, self.uncertainties))
        if not comm.is_main_process():
            return None
        wrong = np.concatenate([array for part, _ in gathered for array in part])
        results = {}
        for name in self.uncertainties:
            values = np.concatenate([array for _, part in gathered for array in part[name]])
            results[f"AUROC-{name}"] = 100 * error_auroc(values, wrong)
            results[f"AURC-{name}"] = 100 * area_under_risk_coverage(values, wrong)
        results["AURC-perfect"] = 100 * area_under_risk_coverage(wrong, wrong)
        results["AURC-none"] = 100 * float(wrong.mean())
        table = [
            [name, results.get(f"AUROC-{name}", ""), results[f"AURC-{name}"]]
            for name in (*self.uncertainties, "perfect", "none")
        ]
        headers = ["uncertainty", "AUROC of errors", "AURC"]
        logger.info(
            "In percent:\n%s", tabulate(table, headers=headers, tablefmt="pipe", floatfmt=".2f")
        )
        return OrderedDict(uncertainty=results)
