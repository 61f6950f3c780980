"""Mean intersection over union from a streaming confusion matrix.

Detectron2's SemSegEvaluator encodes and keeps every prediction, counts label values outside the
classes in other cells, and reports a boundary score of eroded label values; this one keeps C x C
numbers.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from ..data.labels import LabelReader
from ..errors import InputError
from .class_map import class_map

logger = logging.getLogger(__name__)

MOST_CELLS = 2**22  # of the images' confusion matrices that are kept for an interval
MAX_COUNT = 2**24  # up to which float32 holds every whole number


def confusion_matrix(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count (label, prediction) pairs of uint8 ``(H, W)``; labels outside the classes are left out.

    Returns:
        ``(C, C)`` int64, rows are labels.
    """
    confusion = np.zeros((num_classes, num_classes), np.int64)
    # OpenCV's histogram is three times as fast as NumPy's bincount, but counts in float32.
    parts = -(-label.size // MAX_COUNT)
    for labels, predictions in zip(np.array_split(label, parts), np.array_split(prediction, parts)):
        pairs = [labels, predictions]
        sizes, ranges = [num_classes] * 2, [0, num_classes] * 2
        confusion += cv2.calcHist(pairs, [0, 1], None, sizes, ranges).astype(np.int64)
    return confusion


def bootstrap_interval(confusions: np.ndarray, resamples: int = 1000) -> tuple[float, float]:
    """Between what the mean IoU over labeled classes lies in 95 % of other draws of as many images.

    The percentile bootstrap over images (Efron 1979). It knows of the images' number and of how they differ,
    not of how they were chosen, nor of another training's seed.

    Args:
        confusions: of each image, ``(N, C, C)``, rows are labels.
        resamples: draws with replacement, always the same ones.

    Examples:
        >>> one, other = np.array([[4, 0], [0, 4]]), np.array([[4, 0], [4, 0]])
        >>> bootstrap_interval(np.stack([one, one]))
        (1.0, 1.0)
        >>> low, high = bootstrap_interval(np.stack([one, other]))
        >>> low, high
        (0.25, 1.0)
    """
    confusions = confusions[confusions.any((1, 2))].astype(np.float64)
    number = len(confusions)
    rng = np.random.default_rng(0)
    means = []
    for times in rng.multinomial(number, np.full(number, 1 / number), resamples):
        one = np.tensordot(times.astype(np.float64), confusions, 1)
        means.append(np.mean(intersection_over_union(one)[one.any(1)]))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """Per class, ``(C,)`` in [0, 1], of ``(C, C)`` whose rows are labels; NaN for a class that none holds."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full(len(confusion), np.nan), where=union > 0)


def class_ious(results: Mapping[str, float]) -> dict[str, float]:
    """Of the results of an evaluation the IoU by class, and their "mean"; each the mean over test sets.

    Examples:
        >>> class_ious({"a/sem_seg/mIoU": 40.0, "b/sem_seg/mIoU": 60.0, "b/sem_seg/IoU-car": 60.0})
        {'mean': 50.0, 'car': 60.0}
    """
    found: dict[str, list[float]] = {}
    for key, value in results.items():
        if name := re.search(r"sem_seg/(?:IoU-(.+)|mIoU)$", key):
            found.setdefault(name[1] or "mean", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


class MeanIoUEvaluator(DatasetEvaluator):
    """IoU per class, mean IoU, mean accuracy and pixel accuracy.

    Mean IoU comes in both of the usual conventions. "mIoU" is over the classes that a label of the
    data set shows. "mIoU-predicted" is over these and the classes that are predicted somewhere
    (IoU 0), as in mmsegmentation. They are equal where every predicted class is labeled. The other
    means are over labeled classes.

    Args:
        label_reader: reads the data set's labels as the model's classes.
        means: class names of further mean IoUs by their names.
    """

    def __init__(self, label_reader: LabelReader, means: Mapping[str, Sequence[str]] | None = None):
        self.label_reader = label_reader
        self.class_names = label_reader.class_names
        self.means = {
            name: [self.class_names.index(class_name) for class_name in class_names]
            for name, class_names in (means or {}).items()
        }
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.confusion = np.zeros((len(self.class_names),) * 2, np.int64)
        self.of_images: list[np.ndarray] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count one batch of predictions against the label files of its images."""
        for record, output in zip(inputs, outputs):
            scores = output["sem_seg"]
            prediction = class_map(scores, record["file_name"], record.get("image_size"))
            label = self.label_reader.label_of(record)
            if prediction.shape != label.shape:
                raise InputError(
                    f"{record['sem_seg_file_name']} is {label.shape}, the image "
                    f"{record['file_name']} {prediction.shape} (height, width): they must be of "
                    "one size"
                )
            found = confusion_matrix(prediction, label, len(self.class_names))
            self.confusion += found
            if (len(self.of_images) + 1) * found.size <= MOST_CELLS:
                self.of_images.append(found)

    def evaluate(self) -> OrderedDict | None:
        """The results over all processes, in percent, on the main process; None on the others.

        Returns:
            of "sem_seg" the figures "mIoU", "mIoU-predicted", "mACC", "pACC", "IoU-<class>" and
            "ACC-<class>", the further means of which a class is labeled, and, unless images are so many that
            their counts are not kept, "mIoU-low" and "mIoU-high" (:func:`bootstrap_interval`).

        Raises:
            InputError: no pixel of the test set is labeled.
        """
        gathered = comm.gather((self.confusion, self.of_images))
        if not comm.is_main_process():
            return None
        confusion = np.sum([matrix for matrix, _ in gathered], axis=0)
        of_images = [one for _, several in gathered for one in several]
        labeled = confusion.sum(1) > 0
        if not labeled.any():
            raise InputError(
                "every pixel of the test set is ignored: no figure can be given. Choose a labeled "
                "test set in DATASETS.TEST"
            )
        iou = intersection_over_union(confusion)
        with np.errstate(invalid="ignore"):
            accuracy = np.diag(confusion) / confusion.sum(1)
        results = {
            "mIoU": 100 * float(np.mean(iou[labeled])),
            "mIoU-predicted": 100 * float(np.nanmean(iou)),
            **{
                name: 100 * float(np.mean(iou[shown]))
                for name, indices in self.means.items()
                if (shown := [index for index in indices if labeled[index]])
            },
            "mACC": 100 * float(np.mean(accuracy[labeled])),
            "pACC": 100 * float(np.diag(confusion).sum() / confusion.sum()),
        }
        if len(of_images) > 1 and np.sum(of_images) == confusion.sum():
            low, high = bootstrap_interval(np.stack(of_images))
            results |= {"mIoU-low": 100 * low, "mIoU-high": 100 * high}
        table = tabulate(
            zip(self.class_names, 100 * iou, 100 * accuracy),
            headers=["class", "IoU", "accuracy"],
            floatfmt=".2f",
            tablefmt="pipe",
        )
        logger.info("Per class, in percent:\n%s\n%s", table, create_small_table(results))
        self._log_coverage(labeled, ~np.isnan(iou))
        for name, class_iou, class_accuracy, present in zip(
            self.class_names, iou, accuracy, labeled
        ):
            if present:
                results[f"IoU-{name}"] = 100 * float(class_iou)
                results[f"ACC-{name}"] = 100 * float(class_accuracy)
        return OrderedDict(sem_seg=results)

    def _log_coverage(self, labeled: np.ndarray, counted: np.ndarray) -> None:
        """Say which classes the means leave out; loudly where one class is all there is."""

        def names(chosen: np.ndarray) -> str:
            return ", ".join(np.array(self.class_names)[chosen]) or "none"

        logger.log(
            logging.WARNING if labeled.sum() == 1 else logging.INFO,
            "mIoU is the mean of %d of %d classes, those that a label shows (left out: %s); "
            "mIoU-predicted of %d (left out: %s), where predicted classes that no label shows "
            "count as 0 (%s)",
            labeled.sum(),
            len(labeled),
            names(~labeled),
            counted.sum(),
            names(~counted),
            names(counted & ~labeled),
        )
