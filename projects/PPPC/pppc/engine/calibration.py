"""Probabilities of error that are fitted without target labels."""

import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor

from ..errors import InputError
from ..evaluation.drawn_pixels import PixelDraw
from ..evaluation.selection import vote
from ..modeling.meta_arch import PPPCSegmentor
from ..processes import from_main_process
from .run_hooks import Evaluation
from .selection import Selection

logger = logging.getLogger(__name__)


def calibrate(
    model: PPPCSegmentor, draw: PixelDraw, by: str, former: Sequence[Tensor] = ()
) -> None:
    """Fit a model's temperature and probability of error to drawn pixels.

    Args:
        model: in any mode.
        draw: of the pixels.
        by: "source", by the labels of held-out source images; or "vote", on target images by the vote of
            the model, its teacher and the models before it.
        former: the classes of these, ``(1 or 2, I, P)`` each.

    Raises:
        InputError: no source image is held out, or an image can't be read.
    """
    if by == "source" and not draw.held_out:
        raise InputError(
            "TEST.CALIBRATION is source, but the model was trained on all source images: train one with "
            "DATASETS.HELD_OUT 5, or set TEST.CALIBRATION vote"
        )
    output = draw.outputs(model, of_source=by == "source")
    num_classes = output["sem_seg"].shape[1]
    if by == "source":
        label = output.pop("label")
    else:
        votes = torch.cat([*former, output.pop("classes").cpu()])
        label = vote(votes, num_classes).flatten().long().to(model.device)
    labeled = label < num_classes
    chosen = {name: values[labeled] for name, values in output.items()}
    model.error_probability.fit(chosen, label[labeled])
    model.error_probability.imagenet_prototypes.fill_(
        model.predicts_with_imagenet_prototypes
        and bool(model.imagenet_prototypes.prediction_weight > 0)
    )
    model.calibrated = model.error_probability.fitted
    logger.info(
        "Calibration by %s: temperature %.3f, weights of the signals %s",
        by, model.error_probability.temperature, model.error_probability.weight.tolist(),
    )  # fmt: skip


def calibrate_trained(cfg: CfgNode, model: PPPCSegmentor) -> None:
    """Calibrate a trained model as TEST.CALIBRATION says, if it asks for that and the model is not.

    Raises:
        InputError: the images are not at hand; or there is no vote beside MODEL.WEIGHTS.
    """
    by = cfg.TEST.CALIBRATION
    if by == "none" or model.calibrated:
        return
    draw = PixelDraw(cfg, model, torch.zeros(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES))
    former = []
    if by == "vote":
        path = Path(cfg.MODEL.WEIGHTS).with_name(Selection.FILE)
        try:
            with np.load(path) as found:
                files, classes = found["files"].tolist(), torch.from_numpy(found["classes"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} can't be read ({error}), which holds the votes of a run: calibrate a checkpoint in "
                "the folder of its run, or set TEST.CALIBRATION source"
            ) from error
        if files != draw.files:
            raise InputError(
                f"{path} is of other images than DATASETS.TARGET: set TEST.CALIBRATION source"
            )
        former = [classes]
    calibrate(model, draw, by, former)


class Calibration(HookBase):
    """:func:`calibrate` before each evaluation and each checkpoint.

    Args:
        cfg: the configuration.
        model: that is trained.
        evaluation: of the run.
        selection: gives the main process's hook, whose draw and votes are used.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: PPPCSegmentor,
        evaluation: Evaluation,
        selection: Callable[[], Selection],
    ):
        self.by, self.period = cfg.TEST.CALIBRATION, cfg.SOLVER.CHECKPOINT_PERIOD
        self.model, self.evaluation, self.selection = model, evaluation, selection

    def before_train(self) -> None:
        self.model.calibrated = self.model.error_probability.fitted

    def after_step(self) -> None:
        number = self.trainer.iter + 1
        if self.evaluation.due(number) or number % self.period == 0:
            state = from_main_process(self._fit)
            self.model.error_probability.load_state_dict(state)
            self.model.calibrated = self.model.error_probability.fitted

    def _fit(self) -> dict[str, Tensor]:
        selection = self.selection()
        former = [one.classes for one in selection.candidates]
        calibrate(self.model, selection.draw, self.by, former)
        return {name: x.cpu() for name, x in self.model.error_probability.state_dict().items()}
