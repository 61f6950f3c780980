"""Backbone, decoder and probabilistic head, as student and teacher each have them.

Shapes: N images of H x W pixels, C classes, D embedding dimensions, h x w positions.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from .probabilistic_head import StageProbabilisticHead

# Of RGB images in [0, 255].
IMAGENET_MEAN = tuple(255 * value for value in IMAGENET_DEFAULT_MEAN)
IMAGENET_STD = tuple(255 * value for value in IMAGENET_DEFAULT_STD)


class NetworkOutput(NamedTuple):
    """What was asked of a :class:`SegmentationNetwork`; the rest is None."""

    logits: Tensor | None  # (N, C, h, w)
    mean: Tensor | None  # (N, D, h', w'), unit length
    log_var: Tensor | None  # (N, D, h', w')
    last_stages: tuple[Tensor, ...] | None = (
        None  # (N, C', h'', w'') each, the encoder's last feature maps
    )


class SegmentationNetwork(nn.Module):
    """Backbone, decoder and, where the contrast is used, the probabilistic head.

    Args:
        backbone: images to features by their names; any module that does.
        sem_seg_head: its ``layers`` make class scores of features, as Detectron2's heads do.
        probabilistic_head: features to Gaussians, or None.
        pixel_mean, pixel_std: of the images' channels, in [0, 255].
        mixed_precision: run under autocast to this type; None: in float32.
        size_divisibility: height and width of images are padded to multiples of it, for encoders
            and decoders that need whole strides; what they make of the padding is cut off.
        min_size: height and width of images are padded to that many pixels at least.
    """

    def __init__(
        self,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        probabilistic_head: StageProbabilisticHead | None = None,
        pixel_mean: tuple[float, ...] = IMAGENET_MEAN,
        pixel_std: tuple[float, ...] = IMAGENET_STD,
        mixed_precision: torch.dtype | None = None,
        size_divisibility: int = 1,
        min_size: int = 1,
    ):
        super().__init__()
        self.size_divisibility = size_divisibility
        self.min_size = min_size
        self.mixed_precision = mixed_precision
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.probabilistic_head = probabilistic_head
        if mixed_precision is not None:
            # Half precision is faster so in encoders, not in decoders; float32 in neither.
            backbone.to(memory_format=torch.channels_last)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    def forward(
        self, image: Tensor, *, logits: bool = True, embedding: bool, last_stages: int = 0
    ) -> NetworkOutput:
        """Decoder for ``logits``, head for ``embedding``, of images ``(N, 3, H, W)`` in [0, 255].

        ``last_stages``: so many of the encoder's feature maps, the finest first.
        """
        size = image.shape[-2:]
        # Where an export need not take images below `min_size`, its arithmetic of sizes stays solvable.
        pads = self.size_divisibility > 1 or self.min_size > 1 and not torch.compiler.is_exporting()
        image = (image - self.pixel_mean) / self.pixel_std
        if pads:
            height, width = map(self._padding, size)
            image = F.pad(image, (0, width, 0, height))
        padded = image.shape[-2:]

        def cut(features: Tensor) -> Tensor:
            """Without the padding, of which a map of any stride has its share."""
            if not pads:
                return features
            parts = zip(features.shape[-2:], size, padded)
            height, width = (
                (length * inner + outer - 1) // outer for length, inner, outer in parts
            )
            return features[..., :height, :width]

        if self.mixed_precision is not None:
            image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(
            image.device.type, self.mixed_precision, enabled=self.mixed_precision is not None
        ):
            features = self.backbone(image)
            mean, log_var = (
                map(cut, self.probabilistic_head(features)) if embedding else (None, None)
            )
            last = tuple(map(cut, list(features.values())[-last_stages:])) if last_stages else None
            if not logits:
                return NetworkOutput(None, mean, log_var, last)
            features = {name: map.contiguous() for name, map in features.items()}
            return NetworkOutput(cut(self._scores(features)), mean, log_var, last)

    def _scores(self, features: dict[str, Tensor]) -> Tensor:
        head = self.sem_seg_head
        if hasattr(head, "layers"):
            return head.layers(features)
        # Detectron2's DeepLabV3Head
        return head.predictor(head.aspp(features[head.in_features[0]]))

    def _padding(self, length: int) -> int:
        """By how many pixels a side is padded.

        In arithmetic that an export keeps for all sizes: negative numbers are divided otherwise in
        ONNX, and ``max`` would be taken for one of its sides. In TorchScript ``length`` is a tensor.
        """
        multiple = self.size_divisibility
        if multiple > 1:
            multiple = max(multiple, self.min_size)
            return (length + multiple - 1) // multiple * multiple - length
        if isinstance(length, torch.SymInt):
            return torch.sym_max(length, self.min_size) - length
        lacking = self.min_size - length
        return (lacking + abs(lacking)) // 2


def mixed_precision_type(cfg: CfgNode) -> torch.dtype | None:
    """What SOLVER.AMP asks for; None: float32."""
    return getattr(torch, cfg.SOLVER.AMP.TYPE) if cfg.SOLVER.AMP.ENABLED else None
