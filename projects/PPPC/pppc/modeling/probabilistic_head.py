"""The head that embeds each pixel as a Gaussian (arXiv 2409.18543).

Shapes: N images, D embedding dimensions, h x w positions.

From each branch's last normalization on all is float32, under autocast too: the scores of a pixel with
two prototypes differ by about 1/D, which is too little for bfloat16. What follows that normalization is
computed again in the backward pass: kept, its maps of ``(N, D, h, w)``, 0.1 GB each for 640x640 pixels at
stride 4, would be most of what the head keeps.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .decode_heads import resize, select_stages

MAX_LOGIT = 80.0  # keeps exp finite in float32
EPSILON = 1e-6
# Of a function's maps the first alone is kept for the backward pass.
_recomputed = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


class _LogVarianceBranch(nn.Module):
    """Two linear maps with rows of unit length; the published (and PRCL's) uncertainty head."""

    def __init__(self, in_channels: int, dim: int):
        super().__init__()
        self.fc1 = nn.Parameter(torch.empty(dim, in_channels))
        self.fc2 = nn.Parameter(torch.empty(dim, dim))
        nn.init.kaiming_normal_(self.fc1)
        nn.init.kaiming_normal_(self.fc2)
        self.bn1 = nn.BatchNorm2d(dim)
        self.bn2 = nn.BatchNorm2d(dim, affine=False)
        self.gamma = nn.Parameter(torch.ones(1))
        self.beta = nn.Parameter(torch.zeros(1))

    def forward(self, linear: Callable[[Tensor], Tensor]) -> Tensor:
        """Log-variances in [1e-6, 1], ``(N, D, h, w)``.

        Args:
            linear: a weight ``(D, in, 1, 1)`` to the features' map by it, ``(N, D, h, w)``.
        """
        hidden = F.relu(self.bn1(linear(self._unit_rows(self.fc1))))
        hidden = F.conv2d(hidden, self._unit_rows(self.fc2))
        return _recomputed(self._log_variance, self.bn2(hidden.float()))

    def _log_variance(self, hidden: Tensor) -> Tensor:
        logit = (self.gamma * hidden + self.beta).clamp(max=MAX_LOGIT)
        return torch.sigmoid(torch.log(torch.exp(logit) + EPSILON))

    @staticmethod
    def _unit_rows(weight: Tensor) -> Tensor:
        return F.normalize(weight, dim=1)[:, :, None, None]


class ProbabilisticHead(nn.Module):
    """Mean and log-variance of each position's Gaussian.

    Args:
        in_channels: of the features.
        dim: D.
        mid_channels: of the mean branch's hidden layers; None: ``in_channels``.
        num_convs: 1x1 convolutions of the mean branch.
        learn_variance: whether there is a log-variance branch.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int,
        mid_channels: int | None = None,
        num_convs: int = 2,
        learn_variance: bool = True,
    ):
        super().__init__()
        mid_channels = mid_channels or in_channels
        widths = [in_channels, *[mid_channels] * (num_convs - 1), dim]
        layers: list[nn.Module] = []
        for width, next_width in zip(widths, widths[1:]):
            conv = nn.Conv2d(width, next_width, 1, bias=False)
            c2_msra_fill(conv)  # as published: with AdamW the scale sets the effective rate
            layers += [conv, nn.BatchNorm2d(next_width), nn.ReLU()]
        self.mean = nn.Sequential(*layers)
        self.log_variance = _LogVarianceBranch(in_channels, dim) if learn_variance else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``(N, in, h, w)`` to unit means and log-variances, both ``(N, D, h, w)`` float32.

        Log-variances are in [1e-6, 1], or 0 where there is no branch for them.
        """
        return self._embed(lambda weight: F.conv2d(features, weight))

    def _embed(self, linear: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log-variance from the features' first maps, see :class:`_LogVarianceBranch`."""
        hidden = self.mean[1:-2](linear(self.mean[0].weight))
        mean = _recomputed(self._unit_mean, self.mean[-2](hidden.float()))
        if self.log_variance is None:
            return mean, torch.zeros_like(mean)
        return mean, self.log_variance(linear)

    def _unit_mean(self, hidden: Tensor) -> Tensor:
        return F.normalize(self.mean[-1](hidden), dim=1)


class StageProbabilisticHead(ProbabilisticHead):
    """A probabilistic head on several stages, resized to the finest of them and concatenated.

    Args:
        input_shape: channels and stride of the stages.
        dim, mid_channels, num_convs: as in :class:`ProbabilisticHead`.
        log_variance_shift: added to the log-variances (published: 0).
        learn_variance: predict the log-variances; False: the shift is all there is, so that the
            embedding is a point for every purpose.
    """

    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        dim: int,
        mid_channels: int | None = None,
        num_convs: int = 2,
        log_variance_shift: float = 0.0,
        learn_variance: bool = True,
    ):
        channels = sum(shape.channels for shape in input_shape.values())
        super().__init__(channels, dim, mid_channels, num_convs, learn_variance)
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.log_variance_shift = log_variance_shift

    def forward(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """All stages' features to mean and log-variance at the finest stage's stride."""
        # All that follows, to the contrast, is of single positions: their dimensions stay together.
        stages = [
            features[name].contiguous(memory_format=torch.channels_last)
            for name in self.in_features
        ]
        channels = [stage.shape[1] for stage in stages]

        def linear(weight: Tensor) -> Tensor:
            """The map of the resized and concatenated stages; linear maps commute with resizing,
            so each is computed at its stage's own size."""
            finest, *coarser = (
                F.conv2d(stage, part) for stage, part in zip(stages, weight.split(channels, dim=1))
            )
            for stage in coarser:
                finest += resize(stage, finest)
            return finest

        mean, log_var = self._embed(linear)
        return mean, log_var + self.log_variance_shift


def build_probabilistic_head(
    cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]
) -> StageProbabilisticHead:
    """The head that MODEL.PROBABILISTIC_HEAD describes."""
    head = cfg.MODEL.PROBABILISTIC_HEAD
    return StageProbabilisticHead(
        select_stages(input_shape, head.IN_FEATURES, "MODEL.PROBABILISTIC_HEAD.IN_FEATURES"),
        head.DIM,
        head.MID_CHANNELS or None,
        head.NUM_CONVS,
        -math.log(head.DIM) if head.VARIANCE_OVER_DIM else 0.0,
        head.LEARN_VARIANCE,
    )
