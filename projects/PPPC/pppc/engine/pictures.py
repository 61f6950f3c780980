"""Pictures of the training batch, for TensorBoard and as files."""

from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..data.catalog import class_colors, model_metadata
from ..modeling.meta_arch import PPPCSegmentor
from ..visualization import captioned_row, colorize_labels, colorize_uncertainty
from .adaptation_loop import AdaptationLoop, StepRecord


class TrainingPictures(HookBase):
    """Every VIS_PERIOD iterations: source, target, pseudo-label, mix and uncertainty.

    A row per image, in OUTPUT_DIR/pictures and in TensorBoard.
    """

    def __init__(self, cfg: CfgNode, loop: AdaptationLoop):
        self.loop = loop
        self.period = cfg.VIS_PERIOD
        self.image_format = cfg.INPUT.FORMAT
        self.folder = Path(cfg.OUTPUT_DIR) / "pictures"
        self.colors = class_colors(model_metadata(cfg))

    def after_step(self) -> None:
        if self.period <= 0 or (self.trainer.iter + 1) % self.period:
            return
        picture = self.draw(self.loop.segmentor, self.loop.record)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.trainer.iter + 1:07d}.png"
        cv2.imwrite(str(path), picture[:, :, ::-1])
        get_event_storage().put_image("training", picture.transpose(2, 0, 1))

    def draw(self, segmentor: PPPCSegmentor, record: StepRecord) -> np.ndarray:
        """All rows as one picture."""
        batches = {name: batch for name, batch in record._asdict().items() if batch is not None}
        uncertainty = None
        if record.target is not None and segmentor.student.probabilistic_head is not None:
            uncertainty = _uncertainty(segmentor, record.target.image)
        rows = []
        for i in range(min(map(len, batches.values()))):
            row = {}
            for name, batch in batches.items():
                row[name] = self._rgb(batch.image[i])
                row[f"{name} label"] = colorize_labels(batch.label[i].cpu().numpy(), self.colors)
            if uncertainty is not None:
                row["target uncertainty"] = colorize_uncertainty(uncertainty[i])
            rows.append(captioned_row(row))
        return np.concatenate(rows)

    def _rgb(self, image: Tensor) -> np.ndarray:
        picture = image.permute(1, 2, 0).cpu().numpy().astype(np.uint8)
        return picture if self.image_format == "RGB" else picture[:, :, ::-1]


@torch.no_grad()
def _uncertainty(segmentor: PPPCSegmentor, image: Tensor) -> np.ndarray:
    """The student's uncertainty, ``(N, H, W)``."""
    segmentor.eval()  # so that the picture leaves no trace in the running statistics
    output = segmentor.student(image, logits=False, embedding=True)
    segmentor.train()
    return segmentor.uncertainty(output, image.shape[-2:])["uncertainty"].cpu().numpy()
