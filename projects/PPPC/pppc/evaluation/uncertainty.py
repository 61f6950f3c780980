"""Does the uncertainty know where the model errs?

Shapes: P pixels.
"""

import logging
import math
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from ..data.labels import LabelReader
from .calibration import calibration_error, error_detection
from .class_map import resized

logger = logging.getLogger(__name__)

PIXELS_PER_IMAGE = 20_000  # enough for the third digit, and a large test set fits in memory


class UncertaintyEvaluator(DatasetEvaluator):
    """Compare the embedding's uncertainty with that of the class probabilities, and these with labels.

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
        self.penalties: list[np.ndarray] = []  # Brier's score and the log-likelihood's, (2, P)
        self.uncertainties: dict[str, list[np.ndarray]] = {
            name: [] for name in ("prototypes", "variance", "confidence", "entropy")
        }

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for given, output in zip(inputs, outputs):
            label = self.label_reader.label_of(given)
            label = resized(label, tuple(output["sem_seg"].shape[1:])).astype(np.int64)
            labeled = np.flatnonzero((label >= 0) & (label < self.num_classes))
            chosen = labeled[:: max(1, math.ceil(len(labeled) / PIXELS_PER_IMAGE))]
            scores = output["sem_seg"].flatten(1)[:, chosen].float()
            probability = scores.softmax(0)
            self.wrong.append(probability.argmax(0).cpu().numpy() != label.flat[chosen])
            true = torch.from_numpy(label.flat[chosen]).to(probability.device)
            brier = (probability - F.one_hot(true, self.num_classes).T).square().sum(0)
            log_likelihood = F.cross_entropy(scores.T, true, reduction="none")
            self.penalties.append(torch.stack([brier, log_likelihood]).cpu().numpy())
            for name, uncertainty in (
                ("prototypes", output["uncertainty"].flatten()[chosen]),
                ("variance", output["log_variance"].flatten()[chosen]),
                ("confidence", 1 - probability.amax(0)),
                ("entropy", -probability.xlogy(probability).sum(0)),
            ):
                self.uncertainties[name].append(uncertainty.float().cpu().numpy())

    def evaluate(self) -> OrderedDict | None:
        """Returns:
        ``{"uncertainty": {...}}``, in percent but for "NLL": of each uncertainty the measures of
        :func:`pppc.evaluation.calibration.error_detection`, such as "AUROC-entropy", and the AURC of a
        perfect one and of none; of the probabilities "ECE", "ECE-adaptive", "Brier" (of all classes, so
        at most 200) and "NLL", in nats. None in the processes that are not the first.
        """
        gathered = comm.gather((self.wrong, self.penalties, self.uncertainties))
        if not comm.is_main_process():
            return None
        wrong = np.concatenate([array for part, _, _ in gathered for array in part])
        values = {
            name: np.concatenate([array for *_, part in gathered for array in part[name]])
            for name in self.uncertainties
        }
        results, rows = {}, []
        for name, uncertainty in values.items():
            found = {n: 100 * value for n, value in error_detection(uncertainty, wrong).items()}
            results |= {f"{measure}-{name}": value for measure, value in found.items()}
            rows.append({"uncertainty": name} | found)
        results["AURC-perfect"] = results["AURC-entropy"] - results["E-AURC-entropy"]
        results["AURC-none"] = 100 * float(wrong.mean())
        confidence = 1 - values["confidence"]
        results["ECE"] = 100 * calibration_error(confidence, ~wrong)
        results["ECE-adaptive"] = 100 * calibration_error(confidence, ~wrong, equal_mass=True)
        brier, likelihood = np.concatenate([p for _, part, _ in gathered for p in part], 1).mean(1)
        results["Brier"], results["NLL"] = 100 * float(brier), float(likelihood)
        table = tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".2f")
        logger.info("Does uncertainty tell errors? In percent:\n%s", table)
        of_all = ("AURC-perfect", "AURC-none", "ECE", "ECE-adaptive", "Brier", "NLL")
        logger.info("%s", create_small_table({name: results[name] for name in of_all}))
        return OrderedDict(uncertainty=results)
