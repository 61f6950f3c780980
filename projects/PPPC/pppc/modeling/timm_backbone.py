"""timm's encoders as Detectron2 backbones, and the SegFormer encoders MiT-B0 to B5 as timm models.

Shapes: N images of H x W pixels; stage k has C_k channels at stride s_k:
``(N, C_k, H/s_k, W/s_k)``.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

import timm
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import Tensor, nn

from ..errors import InputError
from .normalization import Preparation

__all__ = ["TimmBackbone", "TimmEncoder", "build_timm_backbone"]  # timm adds its models' names

NUM_STAGES = 4
Encoder = TypeVar("Encoder", bound="TimmEncoder")


class TimmEncoder(Backbone):
    """What encoders of timm have in common.

    Attributes:
        name: of the timm model.
        model: timm's network.
    """

    name: str
    model: nn.Module

    def preparation(self) -> Preparation:
        """What timm's weights want."""
        return Preparation(self.model.pretrained_cfg["mean"], self.model.pretrained_cfg["std"])

    def whole_network(self) -> nn.Module:
        """The encoder with the layers that follow the last feature map, as files hold it."""
        return timm.create_model(self.name)


class TimmBackbone(TimmEncoder):
    """The last four feature maps of a timm model, "stage1" (finest) to "stage4".

    Args:
        name: of the timm model, for example mit_b5, resnet101c or resnet18.
        output_stride: of the coarsest map: 32, 16 or 8. Below 32 the last stages are dilated.
        drop_path_rate: stochastic depth of the last block, linear over the depth.
        pretrained: download timm's weights.
        recompute: compute the stages again in the backward pass.

    Attributes:
        min_size: the least height and width of images that the encoder takes, pixels.

    Raises:
        InputError: timm has no such model, or it takes images of few sizes only, or it cannot
            return four maps at this stride, or timm's weights cannot be downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        drop_path_rate: float = 0.0,
        pretrained: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        self.name = name
        # Not every model takes these, so they are passed only where they ask for something.
        options: dict[str, float] = {}
        if drop_path_rate:
            options["drop_path_rate"] = drop_path_rate
        if output_stride != 32:
            options["output_stride"] = output_stride
        self.model = create_timm_model(name, pretrained, options, features_only=True)
        if self.model.pretrained_cfg["fixed_input_size"]:
            raise InputError(f"MODEL.TIMM.NAME: timm's {name} takes images of one size only")
        channels = self.model.feature_info.channels()[-NUM_STAGES:]
        strides = self.model.feature_info.reduction()[-NUM_STAGES:]
        if len(strides) < NUM_STAGES or strides[-1] != output_stride:
            raise InputError(
                f"MODEL.TIMM.NAME: {name} gives feature maps of strides {strides}; four are "
                f"needed, the last of MODEL.TIMM.OUTPUT_STRIDE {output_stride}"
            )
        self._output_shape = {
            f"stage{i}": ShapeSpec(channels=c, stride=s)
            for i, (c, s) in enumerate(zip(channels, strides), start=1)
        }
        sides = (1, *(output_stride * factor for factor in (1, 2, 4)))
        least = next((side for side in sides if self._takes(side, side)), None)
        if least is None:
            raise InputError(
                f"MODEL.TIMM.NAME: {name} takes no images of {sides[-1]}x{sides[-1]} pixels"
            )
        self.min_size = least
        base = max(least, output_stride)
        odd = self._takes(base + 1, 2 * base + output_stride // 3)
        self._size_divisibility = 1 if odd else base
        if not odd and not self._takes(base, 2 * base):
            raise InputError(f"MODEL.TIMM.NAME: {name} takes images of few sizes only")

        if recompute:
            try:
                self.model.set_grad_checkpointing()
            except (AssertionError, AttributeError) as error:
                raise InputError(
                    f"MODEL.RECOMPUTE: timm's {name} cannot do so: set none"
                ) from error

    @torch.no_grad()
    def _takes(self, height: int, width: int) -> bool:
        """Whether the encoder runs on images of this size; tried on shapes, without numbers."""
        mode = self.training
        tensors = dict([*self.named_parameters(), *self.named_buffers()])
        shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
        image = torch.empty(1, 3, height, width, device="meta")
        try:
            torch.func.functional_call(self.eval(), shapes, (image,))
        except (AssertionError, RuntimeError, ValueError):
            return False
        finally:
            self.train(mode)
        return True

    @property
    def size_divisibility(self) -> int:
        """What the sides of images must be multiples of."""
        return self._size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each stage."""
        return self._output_shape

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``(N, 3, H, W)`` normalized images to the four stages' features."""
        features = self.model(image)[-NUM_STAGES:]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            features = [feature.movedim(-1, 1) for feature in features]
        return dict(zip(self._output_shape, features))


def create_timm_model(
    name: str, pretrained: bool, asked: Mapping[str, float], **options: object
) -> nn.Module:
    """A model of timm.

    Args:
        name: of the model.
        pretrained: download timm's weights.
        asked: options that keys below MODEL.TIMM ask for.
        options: others.

    Raises:
        InputError: timm has no such model, or cannot build it so, or its weights cannot be downloaded.
    """
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models()))
        raise InputError(
            f"MODEL.TIMM.NAME: timm has no model {name!r}"
            + (f"; did you mean one of {near}?" if near else "")
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **asked, **options)
    except OSError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"MODEL.TIMM.PRETRAINED: timm's weights of {name} cannot be downloaded "
            f"({reason}). Where there is network, download "
            f"{_address(name)} and set MODEL.WEIGHTS to that file"
        ) from error
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        keys = "".join(f", MODEL.TIMM.{key.upper()} {value}" for key, value in asked.items())
        raise InputError(
            f"timm cannot build this feature extractor: MODEL.TIMM.NAME {name}{keys}"
            + (f" ({error})" if str(error) else "")
        ) from error


def _address(name: str) -> str:
    """Where timm's weights of a model are."""
    weights = timm.get_pretrained_cfg(name)
    if weights.hf_hub_id:
        return f"https://huggingface.co/{weights.hf_hub_id}/resolve/main/model.safetensors"
    return weights.url


def build_encoder(kind: type[Encoder], cfg: CfgNode, **options: object) -> Encoder:
    """An encoder of ``kind`` by the keys that all kinds read, and ``options``.

    With MODEL.TIMM.PRETRAINED, a warning where its weights want images that are normalized otherwise.
    """
    # MODEL.WEIGHTS has the encoder's weights, too.
    pretrained = cfg.MODEL.TIMM.PRETRAINED and not cfg.MODEL.WEIGHTS
    backbone = kind(
        cfg.MODEL.TIMM.NAME,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
        pretrained=pretrained,
        recompute=cfg.MODEL.RECOMPUTE == "encoder",
        **options,
    )
    if pretrained:
        backbone.preparation().warn_unless(cfg, backbone.name)
    return backbone


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The encoder that MODEL.TIMM describes."""
    return build_encoder(TimmBackbone, cfg, output_stride=cfg.MODEL.TIMM.OUTPUT_STRIDE)


# timm looks for its models' metadata under this name. It knows no weights of these; the license is of
# the official ones.
_MIT = {"classifier": "head", "license": "NVIDIA Source Code License for SegFormer, non-commercial"}
default_cfgs = generate_default_cfgs({f"mit_b{size}": _MIT for size in range(6)})


def _mit(
    name: str, depths: tuple[int, ...], embed_dims: tuple[int, ...] = (64, 128, 320, 512)
) -> Callable[..., nn.Module]:
    """A SegFormer encoder (arXiv 2105.15203, table 6): timm's PVT-v2 with other numbers."""

    def build(pretrained: bool = False, **options) -> nn.Module:
        return build_model_with_cfg(
            PyramidVisionTransformerV2,
            name,
            pretrained,
            feature_cfg={"flatten_sequential": True, "out_indices": tuple(range(NUM_STAGES))},
            depths=depths,
            embed_dims=embed_dims,
            num_heads=(1, 2, 5, 8),
            sr_ratios=(8, 4, 2, 1),
            mlp_ratios=(4, 4, 4, 4),
            **options,
        )

    build.__name__ = name  # by which timm knows it
    return register_model(build)


mit_b0 = _mit("mit_b0", (2, 2, 2, 2), (32, 64, 160, 256))
mit_b1 = _mit("mit_b1", (2, 2, 2, 2))
mit_b2 = _mit("mit_b2", (3, 4, 6, 3))
mit_b3 = _mit("mit_b3", (3, 4, 18, 3))
mit_b4 = _mit("mit_b4", (3, 8, 27, 3))
mit_b5 = _mit("mit_b5", (3, 6, 40, 3))
