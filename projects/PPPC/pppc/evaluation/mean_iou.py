"""Mean intersection over union from a streaming confusion matrix.

Detectron2's SemSegEvaluator encodes and keeps every prediction, counts label values outside the
classes in other cells, and reports a boundary score of eroded label values; this one keeps C x C
numbers.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate
from torch import Tensor

from ..data.labels import LabelReader

__all__ = ["MeanIoUEvaluator", "confusion_matrix", "intersection_over_union"]

logger = logging.getLogger(__name__)


def confusion_matrix(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Count (label, prediction) pairs; labels outside the classes are left out.

    Args:
        prediction: ``(H, W)`` int64 in [0, C).
        label: ``(H, W)`` int64.
        num_classes: C.

    Returns:
        ``(C, C)`` int64, rows are labels.
    """
    counted = (label >= 0) & (label < num_classes)
    pairs = num_classes * label[counted] + prediction[counted]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """Per class, ``(C,)`` in [0, 1]; NaN for a class that neither label nor prediction holds.

    Args:
        confusion: ``(C, C)``, rows are labels.
    """
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(
        intersection, union, out=np.full(len(confusion), np.nan), where=union > 0
    )


class MeanIoUEvaluator(DatasetEvaluator):
    """IoU per class, mean IoU over the labelled classes, mean accuracy and pixel accuracy.

    A class that no label of the data set shows takes no part in the means, whether or not it is
    predicted: the predictions count against the classes that they hide.

    Args:
        metadata: of the data set: "stuff_classes" and "label_reader".
    """

    def __init__(self, metadata: Metadata):
        self.class_names: list[str] = metadata.stuff_classes
        self.label_reader: LabelReader = metadata.label_reader
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.confusion = torch.zeros(
            len(self.class_names), len(self.class_names), dtype=torch.int64
        )

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Count one batch of predictions against the label files of its images."""
        for record, output in zip(inputs, outputs):
            prediction = output["sem_seg"].argmax(0).cpu()
            label = torch.from_numpy(self.label_reader.read(record["sem_seg_file_name"])).long()
            if prediction.shape != label.shape:
                raise ValueError(
                    f"{record['sem_seg_file_name']} is {tuple(label.shape)}, the image "
                    f"{record['file_name']} {tuple(prediction.shape)} (height, width): they must "
                    "be of one size"
                )
            self.confusion += confusion_matrix(prediction, label, len(self.class_names))

    def evaluate(self) -> OrderedDict | None:
        """The results over all processes, in percent, on the main process; None on the others.

        Returns:
            ``{"sem_seg": {"mIoU", "mACC", "pACC", "IoU-<class>", "ACC-<class>"}}``.
        """
        matrices = comm.gather(self.confusion)
        if not comm.is_main_process():
            return None
        confusion = torch.stack(matrices).sum(0).numpy()
        labelled = confusion.sum(1) > 0
        iou = 100 * intersection_over_union(confusion)
        with np.errstate(invalid="ignore"):
            accuracy = 100 * np.diag(confusion) / confusion.sum(1)
        results = {
            "mIoU": float(np.mean(iou[labelled])),
            "mACC": float(np.mean(accuracy[labelled])),
            "pACC": float(100 * np.diag(confusion).sum() / confusion.sum()),
        }
        table = tabulate(
            zip(self.class_names, iou, accuracy),
            headers=["class", "IoU", "accuracy"],
            floatfmt=".2f",
            tablefmt="pipe",
        )
        logger.info("Per class, in percent:\n%s\n%s", table, create_small_table(results))
        for name, class_iou, class_accuracy, present in zip(
            self.class_names, iou, accuracy, labelled
        ):
            if present:
                results[f"IoU-{name}"] = float(class_iou)
                results[f"ACC-{name}"] = float(class_accuracy)
        return OrderedDict(sem_seg=results)
