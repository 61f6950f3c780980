"""How much ImageNet prototypes count in prediction."""

import logging

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..evaluation.drawn_pixels import PixelDraw
from ..evaluation.mean_iou import confusion_matrix, intersection_over_union
from ..modeling.meta_arch import PPPCSegmentor
from ..processes import from_main_process
from .run_hooks import Evaluation

logger = logging.getLogger(__name__)

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)


def choose_prediction_weight(model: PPPCSegmentor, draw: PixelDraw) -> float:
    """The weight of WEIGHTS with the highest mIoU on drawn source pixels; of equal ones the lowest.

    Args:
        model: with ImageNet prototypes, in any mode. Their weight is that of before when it is done.
        draw: whose source images are those held out or, where none are, those that were trained on. These
            the student knows best, so that the weight is low rather than high.

    Raises:
        InputError: an image can't be read.
    """
    current = model.imagenet_prototypes.prediction_weight
    before = current.clone()
    scores = []
    for weight in (0.0, 1.0):
        current.fill_(weight)
        output = draw.outputs(model, of_source=True)
        scores.append(output["sem_seg"])
    current.copy_(before)
    alone, together = scores
    label = output["label"].byte().cpu().numpy()

    def miou(weight: float) -> float:
        classes = (alone + weight * (together - alone)).argmax(1).byte().cpu().numpy()
        counts = confusion_matrix(classes, label, alone.shape[1])
        return float(np.mean(intersection_over_union(counts)[counts.sum(1) > 0]))

    found = {weight: miou(weight) for weight in WEIGHTS}
    chosen = max(WEIGHTS, key=lambda weight: (found[weight], -weight))
    logger.info(
        "Weight of ImageNet prototypes in prediction: %g. mIoU on source images by weight: %s",
        chosen, ", ".join(f"{weight:g}: {100 * value:.1f}" for weight, value in found.items()),
    )  # fmt: skip
    return chosen


class PredictionWeight(HookBase):
    """:func:`choose_prediction_weight` before each evaluation; without TEST.SELECTION.IMAGES it stays 1.

    Args:
        cfg: the configuration.
        model: that is trained.
        evaluation: of the run.
    """

    def __init__(self, cfg: CfgNode, model: PPPCSegmentor, evaluation: Evaluation):
        self.cfg, self.model, self.evaluation = cfg, model, evaluation
        self.draw: PixelDraw | None = None

    def before_train(self) -> None:
        if self.model.predicts_with_imagenet_prototypes and not self.cfg.TEST.SELECTION.IMAGES:
            logger.info("ImageNet prototypes count fully in prediction: TEST.SELECTION.IMAGES is 0")

    def after_step(self) -> None:
        chooses = self.model.predicts_with_imagenet_prototypes and self.cfg.TEST.SELECTION.IMAGES
        if chooses and self.evaluation.due(self.trainer.iter + 1):
            weight = from_main_process(self._choose)
            self.model.imagenet_prototypes.prediction_weight.fill_(weight)

    def _choose(self) -> float:
        if self.draw is None:
            shares = torch.zeros(self.cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
            self.draw = PixelDraw(self.cfg, self.model, shares)
        return choose_prediction_weight(self.model, self.draw)
