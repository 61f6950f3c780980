"""Decoders: from the backbone's stages to class scores at the finest stage's stride.

Shapes: N images of H x W pixels, C classes; stage k is ``(N, C_k, h_k, w_k)``, the finest ``h x w``. The
layers are those of the published networks, so that their weights fit by a renaming of keys.

All have the contract of Detectron2's own semantic heads: ``layers`` gives the scores, which is what
this project's network asks for, and ``forward`` losses or resized scores, as Detectron2's
meta-architectures do. So they take each other's place.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from ..errors import InputError


def resize(features: Tensor, like: Tensor) -> Tensor:
    """Resize ``(N, C, h', w')`` to the height and width of ``like``, bilinearly."""
    if features.shape[-2:] == like.shape[-2:]:
        return features
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _conv(in_channels: int, out_channels: int, kernel: int, norm: str, **options) -> Conv2d:
    """Convolution without bias, normalization, ReLU; InputError: the normalization can't divide channels."""
    if norm == "GN" and out_channels % 32:
        raise InputError(
            f"MODEL.SEM_SEG_HEAD.NORM is 'GN', which makes 32 groups, and a layer has {out_channels} "
            "channels: use 'BN' or 'LN', or multiples of 32 (CONVS_DIM, PROJECT_CHANNELS)"
        )
    dilation = options.get("dilation", 1)
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel,
        padding=dilation * (kernel // 2),
        bias=not norm,
        norm=get_norm(norm, out_channels),
        activation=F.relu,
        **options,
    )
    weight_init.c2_msra_fill(conv)
    return conv


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with normalization and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, dilation: int):
        super().__init__(
            _conv(in_channels, in_channels, 3, norm, dilation=dilation, groups=in_channels),
            _conv(in_channels, out_channels, 1, norm),
        )


class _SeparableASPP(nn.Module):
    """Atrous spatial pyramid: parallel branches of several dilations, concatenated and fused.

    The branch of dilation 1 is a 1x1 convolution; ``pool`` adds one of the whole image's mean.
    """

    def __init__(
        self, in_channels: int, channels: int, dilations: Sequence[int], norm: str, pool: bool
    ):
        super().__init__()
        self.image_pool = _conv(in_channels, channels, 1, norm) if pool else None
        self.branches = nn.ModuleList(
            _conv(in_channels, channels, 1, norm)
            if dilation == 1
            else SeparableConv(in_channels, channels, norm, dilation)
            for dilation in dilations
        )
        self.bottleneck = _conv((len(dilations) + pool) * channels, channels, 3, norm)

    def forward(self, features: Tensor) -> Tensor:
        outputs = [branch(features) for branch in self.branches]
        if self.image_pool is not None:
            pooled = self.image_pool(F.adaptive_avg_pool2d(features, 1))
            outputs.insert(0, pooled.expand(-1, -1, *features.shape[-2:]))
        return self.bottleneck(torch.cat(outputs, dim=1))


class _Classifier(nn.Sequential):
    """Dropout of whole channels and a 1x1 convolution to the class scores."""

    def __init__(self, channels: int, num_classes: int, dropout: float):
        conv = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
        super().__init__(nn.Dropout2d(dropout), conv)


class SemanticHead(nn.Module):
    """A decoder with the contract of Detectron2's semantic heads.

    Args:
        input_shape: channels and stride of the stages that it takes.
        ignore_value: label of pixels that take no part in the loss.
    """

    def __init__(self, input_shape: Mapping[str, ShapeSpec], ignore_value: int):
        super().__init__()
        self.common_stride = min(shape.stride for shape in input_shape.values())
        self.ignore_value = ignore_value

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        key = "MODEL.SEM_SEG_HEAD.IN_FEATURES"
        return {
            "input_shape": select_stages(input_shape, head.IN_FEATURES, key),
            "num_classes": head.NUM_CLASSES,
            "channels": head.CONVS_DIM,
            "norm": head.NORM,
            "dropout": head.DROPOUT,
            "ignore_value": head.IGNORE_VALUE,
        }

    @abstractmethod
    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        """The stages' features to class scores ``(N, C, h, w)``."""

    def forward(
        self, features: Mapping[str, Tensor], targets: Tensor | None = None
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What Detectron2's SemanticSegmentor asks for.

        Args:
            features: of the stages.
            targets: in training, ``(N, H, W)`` train IDs or the ignore value.

        Returns:
            in training None and the cross-entropy over the pixels that are labeled, as
            "loss_sem_seg"; in evaluation scores ``(N, C, H, W)`` and no loss.
        """
        scores = F.interpolate(
            self.layers(features).float(),
            scale_factor=self.common_stride,
            mode="bilinear",
            align_corners=False,
        )
        if not self.training:
            return scores, {}
        loss = F.cross_entropy(scores, targets, ignore_index=self.ignore_value)
        return None, {"loss_sem_seg": loss}


def select_stages(
    input_shape: Mapping[str, ShapeSpec], names: Sequence[str], key: str
) -> dict[str, ShapeSpec]:
    """The shapes of the stages that the configuration's ``key`` names; InputError: the backbone lacks one."""
    if unknown := [name for name in names if name not in input_shape]:
        raise InputError(f"{key}: the backbone has no {unknown}, only {list(input_shape)}")
    return {name: input_shape[name] for name in names}


class _MultiStageHead(SemanticHead):
    """Embeds each stage by a linear map, at the finest stage's size."""

    def __init__(
        self, input_shape: Mapping[str, ShapeSpec], channels: int, norm: str, ignore_value: int
    ):
        super().__init__(input_shape, ignore_value)
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride)
        self.embeddings = nn.ModuleDict(
            {
                name: self._embedding(input_shape[name].channels, channels, norm)
                for name in self.in_features
            }
        )

    def _embedding(self, in_channels: int, channels: int, norm: str) -> nn.Module:
        return nn.Linear(in_channels, channels)

    def _embed(self, embedding: nn.Module, stage: Tensor) -> Tensor:
        return embedding(stage.movedim(1, -1)).movedim(-1, 1)

    def embed(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """``(N, channels, h, w)`` of each stage, the finest first."""
        finest = features[self.in_features[0]]
        return [
            resize(self._embed(self.embeddings[name], features[name]), finest)
            for name in self.in_features
        ]


@SEM_SEG_HEADS_REGISTRY.register()
class DAFormerHead(_MultiStageHead):
    """The DAFormer decoder (arXiv 2111.14887, section 3.2): context-aware fusion of all stages."""

    @configurable
    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_classes: int,
        channels: int = 256,
        dilations: Sequence[int] = (1, 6, 12, 18),
        norm: str = "BN",
        dropout: float = 0.1,
        ignore_value: int = 255,
    ):
        """
        Args:
            input_shape: channels and stride of the stages to fuse.
            num_classes: C.
            channels: of each embedded stage, each branch and the fused features.
            dilations: of the branches.
            norm: name of the normalization, as in Detectron2.
            dropout: probability that a channel before the classifier is dropped.
            ignore_value: label of pixels that take no part in :meth:`forward`'s loss.
        """
        super().__init__(input_shape, channels, norm, ignore_value)
        self.aspp = _SeparableASPP(
            len(input_shape) * channels, channels, dilations, norm, pool=False
        )
        self.classifier = _Classifier(channels, num_classes, dropout)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict:
        dilations = cfg.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS
        return {**super().from_config(cfg, input_shape), "dilations": dilations}

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        # The linear maps leave channels last, with which dilated depthwise convolutions are slow.
        return self.classifier(self.aspp(torch.cat(self.embed(features), dim=1).contiguous()))


@SEM_SEG_HEADS_REGISTRY.register()
class SegFormerHead(_MultiStageHead):
    """The all-MLP decoder of SegFormer (arXiv 2105.15203, section 3.2).

    Its arguments are those of :class:`DAFormerHead`.
    """

    @configurable
    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_classes: int,
        channels: int = 256,
        norm: str = "BN",
        dropout: float = 0.1,
        ignore_value: int = 255,
    ):
        super().__init__(input_shape, channels, norm, ignore_value)
        self.fuse = _conv(len(input_shape) * channels, channels, 1, norm)
        self.classifier = _Classifier(channels, num_classes, dropout)

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        coarsest_first = self.embed(features)[::-1]  # the order of the published weights
        return self.classifier(self.fuse(torch.cat(coarsest_first, dim=1)))


@SEM_SEG_HEADS_REGISTRY.register()
class ConvSegFormerHead(SegFormerHead):
    """mmsegmentation's decoder for SegFormer, which its own weights need.

    Unlike in :class:`SegFormerHead`, normalization and ReLU follow each stage's linear map.
    """

    def _embedding(self, in_channels: int, channels: int, norm: str) -> nn.Module:
        return _conv(in_channels, channels, 1, norm)

    def _embed(self, embedding: nn.Module, stage: Tensor) -> Tensor:
        return embedding(stage)

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        return self.classifier(self.fuse(torch.cat(self.embed(features), dim=1)))


@SEM_SEG_HEADS_REGISTRY.register()
class SeparableDeepLabV3PlusHead(SemanticHead):
    """DeepLabV3+ (arXiv 1802.02611) with depthwise separable convolutions, as published for PPPC.

    Detectron2's DeepLabV3PlusHead has other layers, which the published weights do not fit. Its other
    arguments are those of :class:`DAFormerHead`.
    """

    min_batch = 2  # images, for BatchNorm after the pooling of whole images

    @configurable
    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_classes: int,
        channels: int = 512,
        low_level_channels: int = 48,
        dilations: Sequence[int] = (1, 12, 24, 36),
        norm: str = "BN",
        dropout: float = 0.1,
        ignore_value: int = 255,
    ):
        """
        Args:
            input_shape: channels and stride of two stages, low-level (fine) and high-level.
            low_level_channels: to which the finer stage is reduced.

        Raises:
            InputError: there are not two stages.
        """
        super().__init__(input_shape, ignore_value)
        if len(input_shape) != 2:
            raise InputError(
                "SeparableDeepLabV3PlusHead takes two stages, a fine and a coarse one; "
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES names {list(input_shape)}"
            )
        self.low_level_feature, self.high_level_feature = sorted(
            input_shape, key=lambda name: (input_shape[name].stride, input_shape[name].channels)
        )
        low_level, high_level = (
            input_shape[name].channels for name in (self.low_level_feature, self.high_level_feature)
        )
        self.aspp = _SeparableASPP(high_level, channels, dilations, norm, pool=True)
        self.low_level = _conv(low_level, low_level_channels, 1, norm)
        self.fuse = nn.Sequential(
            SeparableConv(channels + low_level_channels, channels, norm, dilation=1),
            SeparableConv(channels, channels, norm, dilation=1),
        )
        self.classifier = _Classifier(channels, num_classes, dropout)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            **super().from_config(cfg, input_shape),
            "low_level_channels": head.PROJECT_CHANNELS[0],
            "dilations": head.ASPP_DILATIONS,
        }

    def layers(self, features: Mapping[str, Tensor]) -> Tensor:
        low_level = self.low_level(features[self.low_level_feature])
        high_level = resize(self.aspp(features[self.high_level_feature]), low_level)
        return self.classifier(self.fuse(torch.cat([high_level, low_level], dim=1)))
