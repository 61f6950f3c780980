"""Prediction of one image of the test size, from tensor to scores at that size."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from .timing import Stages

__all__ = ["Inference"]


class Inference:
    """A model with random weights and a random image."""

    def __init__(self, cfg: CfgNode):
        self.model = build_model(cfg).eval()
        size = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self.inputs = [{"image": 255 * torch.rand(3, *size)}]
        self.stages = Stages(self.model.device)

    def run(self) -> dict[str, float]:
        start = self.stages.now()
        self.model(self.inputs)
        return {"seconds": self.stages.now() - start}
