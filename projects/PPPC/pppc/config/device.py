"""Whether this machine has the device that MODEL.DEVICE names."""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import InputError

logger = logging.getLogger(__name__)


def _why_missing(name: str) -> str | None:
    """Why PyTorch can't use a device here; None: it can."""
    device = torch.device(name)
    if device.type == "cpu":
        return None
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA GPU here"
    if (device.index or 0) >= (number := torch.cuda.device_count()):
        return f"the GPUs here are cuda:0 to cuda:{number - 1}"
    return None


def require_training_device(cfg: CfgNode) -> None:
    """See that training can use MODEL.DEVICE; InputError: it is not here, or processes would share it."""
    name = cfg.MODEL.DEVICE
    if why := _why_missing(name):
        raise InputError(
            f"MODEL.DEVICE is {name!r}, but {why}: choose another one, or train with MODEL.DEVICE cpu"
        )
    if comm.get_world_size() > 1 and ":" in name:
        raise InputError(
            f"MODEL.DEVICE is {name!r}, for {comm.get_world_size()} processes: give 'cuda', of which "
            "each process takes its own GPU, or 'cpu'"
        )


def with_inference_device(cfg: CfgNode) -> CfgNode:
    """``cfg`` or, where the machine has not its device, a copy with one that it has, and a warning.

    A model that was trained on a GPU predicts on a machine without one, too, only slower.
    """
    why = _why_missing(cfg.MODEL.DEVICE)
    if why is None:
        return cfg
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logger.warning("MODEL.DEVICE is %r, but %s: using %s", cfg.MODEL.DEVICE, why, device)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = device
    return cfg
