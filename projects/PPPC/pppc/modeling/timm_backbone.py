"""timm's encoders as Detectron2 backbones, and the SegFormer encoders MiT-B0 to B5 as timm models.

Shapes: N images of H x W pixels; stage k has its channels at stride s_k: ``(N, C_k, H/s_k, W/s_k)``,
rounded up.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.models import register_model
from timm.models.pvt_v2 import PyramidVisionTransformerV2, _create_pvt2
from torch import Tensor

__all__ = ["TimmBackbone", "build_timm_backbone", "convert_mit_state_dict"]

NUM_STAGES = 4


class TimmBackbone(Backbone):
    """The last four feature maps of a timm model, "stage1" (finest) to "stage4".

    Args:
        name: of the timm model, for example mit_b5, resnet101c or resnet18.
        output_stride: of the coarsest map: 32, 16 or 8. Below 32 the last stages are dilated.
        drop_path_rate: stochastic depth of the last block, linear over the depth.
        pretrained: download timm's weights.

    Raises:
        ValueError: timm has no such model, or it cannot return four maps at this stride.
    """

    def __init__(
        self,
        name: str,
        *,
        output_stride: int = 32,
        drop_path_rate: float = 0.0,
        pretrained: bool = False,
    ):
        super().__init__()
        if not timm.is_model(name):
            near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=3))
            raise ValueError(f"timm has no model {name!r} (MODEL.TIMM.NAME). Near: {near or 'none'}")
        options = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        if output_stride != 32:
            options["output_stride"] = output_stride
        try:
            self.model = timm.create_model(
                name, pretrained=pretrained, features_only=True, **options
            )
            info = list(self.model.feature_info)[-NUM_STAGES:]
        except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:
            raise ValueError(
                f"timm's {name} cannot be the backbone with {options or 'these options'}: {error}"
            ) from error
        if len(info) < NUM_STAGES or info[-1]["reduction"] != output_stride:
            raise ValueError(
                f"timm's {name} gives feature maps of strides "
                f"{[level['reduction'] for level in info]}; four are needed, the last of stride "
                f"{output_stride} (MODEL.TIMM.OUTPUT_STRIDE)"
            )
        self._shapes = {
            f"stage{i}": ShapeSpec(channels=level["num_chs"], stride=level["reduction"])
            for i, level in enumerate(info, start=1)
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each stage."""
        return self._shapes

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``(N, 3, H, W)`` normalised images to the four stages' features."""
        return dict(zip(self._shapes, self.model(image)[-NUM_STAGES:]))


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """The encoder that MODEL.TIMM describes."""
    return TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        output_stride=cfg.MODEL.TIMM.OUTPUT_STRIDE,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
        pretrained=cfg.MODEL.TIMM.PRETRAINED,
    )


# SegFormer (arXiv 2105.15203), table 6: blocks of each stage. timm's PVT-v2 is the same encoder
# with other widths.
_MIT_DEPTHS = {
    "mit_b0": (2, 2, 2, 2),
    "mit_b1": (2, 2, 2, 2),
    "mit_b2": (3, 4, 6, 3),
    "mit_b3": (3, 4, 18, 3),
    "mit_b4": (3, 8, 27, 3),
    "mit_b5": (3, 6, 40, 3),
}


def _register_mit(name: str, depths: tuple[int, ...]) -> None:
    def build(pretrained: bool = False, **options) -> PyramidVisionTransformerV2:
        architecture = {
            "depths": depths,
            "embed_dims": (32, 64, 160, 256) if name == "mit_b0" else (64, 128, 320, 512),
            "num_heads": (1, 2, 5, 8),
            "sr_ratios": (8, 4, 2, 1),
            "mlp_ratios": (4.0, 4.0, 4.0, 4.0),
        }
        return _create_pvt2(name, pretrained=pretrained, **{**architecture, **options})

    build.__name__ = name
    build.__module__ = __name__
    globals()[name] = build  # timm's registry looks the function up in its module
    register_model(build)


for _name, _depths in _MIT_DEPTHS.items():
    _register_mit(_name, _depths)


def convert_mit_state_dict(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an official SegFormer encoder (``mit_b5.pth``) to :class:`TimmBackbone`'s.

    Args:
        official: the state dictionary; its classifier, if any, is left out.
    """
    return {
        f"model.{_timm_key(key)}": tensor
        for key, tensor in official.items()
        if not key.startswith("head.")
    }


def _timm_key(key: str) -> str:
    module, rest = key.split(".", 1)
    kind, stage = module[:-1], int(module[-1]) - 1
    rest = rest.replace("dwconv.dwconv", "dwconv")
    if kind == "patch_embed":
        return f"patch_embed.{rest}" if stage == 0 else f"stages_{stage}.downsample.{rest}"
    return f"stages_{stage}.{'blocks' if kind == 'block' else 'norm'}.{rest}"
