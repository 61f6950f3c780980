"""Plain vision transformers of timm (DINOv2, DINOv3, EVA-02, SigLIP) as Detectron2 backbones.

Shapes: as in :mod:`pppc.modeling.timm_backbone`.
"""

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, SimpleFeaturePyramid
from torch import Tensor, nn

from ..errors import InputError
from .timm_backbone import TimmEncoder, build_encoder, create_timm_model

__all__ = ["PlainViT", "build_vit_backbone"]

PATCH = 16
SCALES = (4.0, 2.0, 1.0, 0.5)  # of the four maps: strides 4, 8, 16 and 32
# Position embeddings are resampled for each size of image, patches of another size than PATCH
# (DINOv2's 14) once, so that maps have whole strides. Nothing follows the last block's features.
OPTIONS = {"patch_size": PATCH, "dynamic_img_size": True, "global_pool": "", "num_classes": 0}


class _LastBlock(Backbone):
    """Stands for the transformer in Detectron2's pyramid, which is given its last feature map."""

    def __init__(self, channels: int):
        super().__init__()
        self.shape = ShapeSpec(channels=channels, stride=PATCH)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"last": self.shape}

    def forward(self, feature: Tensor) -> dict[str, Tensor]:
        return {"last": feature}


class PlainViT(TimmEncoder):
    """A plain vision transformer below ViTDet's simple feature pyramid (arXiv 2203.16527).

    Its last feature map becomes four, as a hierarchical encoder has: "stage1" (stride 4) to "stage4" (32).

    Args:
        name: of the timm model, for example vit_small_patch14_dinov2 or vit_base_patch16_dinov3.
        channels: of each of the four maps.
        frozen: so many of the first blocks, and the patch embedding before them, are not trained; -1:
            nothing of the transformer is.
        lr_decay: by which factor a block learns slower than the next one.
        pyramid_lr_factor: by which factor the pyramid, which is new, learns faster than the last block.
        drop_path_rate: stochastic depth of the last block, linear over the depth.
        pretrained: download timm's weights.
        recompute: compute the blocks again in the backward pass.

    Raises:
        InputError: timm has no such model, or it is no plain vision transformer, or has fewer blocks, or
            its weights cannot be downloaded.

    Examples:
        >>> import torch
        >>> encoder = PlainViT("test_vit", channels=8, frozen=1)
        >>> features = encoder(torch.rand(1, 3, 64, 96))
        >>> {name: tuple(feature.shape[1:]) for name, feature in features.items()}
        {'stage1': (8, 16, 24), 'stage2': (8, 8, 12), 'stage3': (8, 4, 6), 'stage4': (8, 2, 3)}
    """

    def __init__(
        self,
        name: str,
        *,
        channels: int = 256,
        frozen: int = 0,
        lr_decay: float = 1.0,
        pyramid_lr_factor: float = 1.0,
        drop_path_rate: float = 0.0,
        pretrained: bool = False,
        recompute: bool = False,
    ):
        super().__init__()
        self.name = name
        self.lr_decay = lr_decay
        self.pyramid_lr_factor = pyramid_lr_factor
        asked = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        try:
            self.model = create_timm_model(name, pretrained, asked, **OPTIONS)
        except InputError as error:
            if not isinstance(error.__cause__, TypeError):
                raise
            raise InputError(
                f"MODEL.TIMM.NAME: timm's {name} is no plain vision transformer ({error.__cause__}). For "
                "other encoders set MODEL.BACKBONE.NAME build_timm_backbone"
            ) from error
        self.num_blocks = len(self.model.blocks)
        if frozen > self.num_blocks:
            raise InputError(
                f"MODEL.VIT.FROZEN is {frozen}, but {name} has {self.num_blocks} blocks: -1 freezes all"
            )
        self.pyramid = SimpleFeaturePyramid(
            _LastBlock(self.model.num_features), "last", channels, SCALES, norm="LN"
        )
        for parameter_name, parameter in self.model.named_parameters():
            if frozen < 0 or frozen > 0 and self._depth(parameter_name) <= frozen:
                parameter.requires_grad_(False)
        if recompute:
            self.model.set_grad_checkpointing()

    def _depth(self, name: str) -> int:
        """Of a parameter of the transformer: 0 before the first block, then the block's number from 1 on."""
        part, *rest = name.split(".")
        if part == "blocks":
            return int(rest[0]) + 1
        return self.num_blocks + 1 if part in ("norm", "fc_norm") else 0

    def lr_factor(self, name: str) -> float:
        """By which factor a parameter of the backbone learns faster than the transformer's last block."""
        module, _, parameter = name.partition(".")
        if module == "pyramid":
            return self.pyramid_lr_factor
        return self.lr_decay ** max(self.num_blocks - self._depth(parameter), 0)

    @property
    def size_divisibility(self) -> int:
        """What the sides of images must be multiples of."""
        return int(PATCH / SCALES[-1])

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each stage."""
        shapes = self.pyramid.output_shape().values()
        return {f"stage{i}": shape for i, shape in enumerate(shapes, start=1)}

    def whole_network(self) -> nn.Module:
        """The transformer with the layers that follow the last feature map, as files hold it.

        Its patches are of 16 pixels, too.
        """
        return timm.create_model(self.name, patch_size=PATCH, dynamic_img_size=True)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """``(N, 3, H, W)`` normalized images, H and W multiples of 32, to the four stages' features."""
        (feature,) = self.model.forward_intermediates(
            image, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return dict(zip(self.output_shape(), self.pyramid(feature).values()))


@BACKBONE_REGISTRY.register()
def build_vit_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> PlainViT:
    """The transformer that MODEL.TIMM and MODEL.VIT describe."""
    return build_encoder(
        PlainViT,
        cfg,
        channels=cfg.MODEL.VIT.CHANNELS,
        frozen=cfg.MODEL.VIT.FROZEN,
        lr_decay=cfg.MODEL.VIT.LR_DECAY,
        pyramid_lr_factor=cfg.SOLVER.HEAD_LR_FACTOR,
    )
