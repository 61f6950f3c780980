"""A trained model, as evaluation, prediction and export use it."""

import logging

from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.modeling import build_model
from torch import nn

from ..config.device import with_inference_device
from ..data.catalog import class_colors
from ..errors import InputError
from .checkpointer import StrictCheckpointer

logger = logging.getLogger(__name__)


def trained_model(cfg: CfgNode, checked: bool = False) -> nn.Module:
    """The configured model with the weights of MODEL.WEIGHTS, in evaluation mode.

    It is on MODEL.DEVICE, or on one that this machine has. Its ``class_names`` and ``class_colors`` are
    those of the file, else the data set's, else "class 0" and so on in Detectron2's colors. ``checked``:
    the file's checksums were looked at already.

    Raises:
        InputError: there are none, or from :meth:`~pppc.checkpoints.checkpointer.StrictCheckpointer.load`.
    """
    if not cfg.MODEL.WEIGHTS:
        raise InputError("no weights: give MODEL.WEIGHTS RUN/model_final.pth")
    model = build_model(with_inference_device(cfg)).eval()
    checkpointer = StrictCheckpointer(model, cfg=cfg, trained=True)
    content = checkpointer.load(cfg.MODEL.WEIGHTS, checked=checked)
    if not (model.prediction_prototypes and _has_imagenet_prototypes(model, cfg)):
        model.imagenet_prototypes = None  # it only takes memory
    if cfg.PPPC.CLASS_BALANCE.PREDICTION:
        model.require_class_shares()
    model.calibrated = cfg.TEST.CALIBRATION != "none" and model.error_probability.fitted
    with_them = bool(model.error_probability.imagenet_prototypes)
    if model.calibrated and with_them != model.predicts_with_imagenet_prototypes:
        model.calibrated = False
        logger.warning(
            "%s counts as not calibrated: it was calibrated for other predictions (PPPC.IMAGENET_PROTOTYPES."
            "PREDICTION %s)", cfg.MODEL.WEIGHTS, with_them,
        )  # fmt: skip
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    names = [f"class {index}" for index in range(number)]
    unknown = {"class_names": names, "class_colors": class_colors(Metadata(stuff_classes=names))}
    for key, default in unknown.items():
        known = (content.get(key), checkpointer.classes().get(key))
        setattr(model, key, next((v for v in known if v and len(v) == number), default))
    return model


def _has_imagenet_prototypes(model: nn.Module, cfg: CfgNode) -> bool:
    """Whether the weights had some that count; InputError: no, and they have to."""
    prototypes = model.imagenet_prototypes
    if prototypes is None or prototypes.sums.any():
        return prototypes is not None and bool(prototypes.prediction_weight > 0)
    if cfg.PPPC.IMAGENET_PROTOTYPES.USE == "always":
        raise InputError(
            f"{cfg.MODEL.WEIGHTS} holds no ImageNet prototypes: set PPPC.IMAGENET_PROTOTYPES.PREDICTION False"
        )
    logger.info("%s holds no ImageNet prototypes to predict with", cfg.MODEL.WEIGHTS)
    return False
