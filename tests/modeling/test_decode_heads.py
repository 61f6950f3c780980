"""Decoders: the published sizes, scores at the finest stage's stride, every parameter in use."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_sem_seg_head
from pppc import add_pppc_config
from pppc.modeling.decode_heads import DAFormerHead, SegFormerHead, SeparableDeepLabV3PlusHead
from pppc.modeling.probabilistic_head import build_probabilistic_head
from torch import nn

SHAPES = {
    "stage1": ShapeSpec(channels=8, stride=4),
    "stage2": ShapeSpec(channels=12, stride=8),
    "stage3": ShapeSpec(channels=16, stride=16),
    "stage4": ShapeSpec(channels=20, stride=32),
}
ENDS = {name: SHAPES[name] for name in ("stage1", "stage4")}
HEADS = pytest.mark.parametrize(
    ("head_class", "shapes"),
    [(DAFormerHead, SHAPES), (SegFormerHead, SHAPES), (SeparableDeepLabV3PlusHead, ENDS)],
)


def _features(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """For images of 72 x 100 pixels, the odd sizes rounded up."""
    sizes = {"stage1": (18, 25), "stage2": (9, 13), "stage3": (5, 7), "stage4": (3, 4)}
    return {
        name: torch.randn(2, shape.channels, *sizes[name], generator=generator)
        for name, shape in SHAPES.items()
    }


@HEADS
def test_scores_at_the_finest_stage_from_every_parameter(head_class: type, shapes: dict) -> None:
    head = head_class(input_shape=shapes, num_classes=5, channels=16)
    scores = head.layers(_features(torch.Generator().manual_seed(0)))
    assert scores.shape == (2, 5, 18, 25)
    scores.square().sum().backward()
    # A parameter without a gradient would stop training on several GPUs.
    unused = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert unused == []


@HEADS
def test_dropout_is_of_whole_channels_and_off_in_evaluation(head_class: type, shapes: dict) -> None:
    head = head_class(input_shape=shapes, num_classes=5, channels=16, dropout=0.25)
    dropouts = [module for module in head.modules() if isinstance(module, nn.Dropout2d)]
    assert [dropout.p for dropout in dropouts] == [0.25]
    head.eval()
    features = _features(torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(head.layers(features), head.layers(features), rtol=0, atol=0)


def test_deeplab_takes_two_stages() -> None:
    with pytest.raises(ValueError, match="IN_FEATURES names .'stage1', 'stage2', 'stage3'"):
        SeparableDeepLabV3PlusHead(input_shape=SHAPES, num_classes=5)


RELEASED = [
    "MODEL.TIMM.NAME", "resnet101c", "MODEL.TIMM.OUTPUT_STRIDE", 8,
    "MODEL.SEM_SEG_HEAD.NAME", "SeparableDeepLabV3PlusHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["stage1", "stage4"], "MODEL.SEM_SEG_HEAD.CONVS_DIM", 512,
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [1, 12, 24, 36],
    "MODEL.PROBABILISTIC_HEAD.IN_FEATURES", ["stage4"], "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 0,
]  # fmt: skip
MIT_B0 = ["MODEL.TIMM.NAME", "mit_b0", "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 128]


@pytest.mark.parametrize(
    ("options", "decimals", "millions"),
    [(RELEASED, 3, 66.777), (["MODEL.TIMM.NAME", "mit_b5"], 2, 86.34), (MIT_B0, 2, 7.56)],
    ids=["resnet101c", "mit_b5", "mit_b0"],
)
def test_whole_students_have_the_published_sizes(options, decimals, millions) -> None:
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.merge_from_list(options)
    with torch.device("meta"):
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        modules = (backbone, build_sem_seg_head(cfg, shape), build_probabilistic_head(cfg, shape))
    parameters = sum(parameter.numel() for module in modules for parameter in module.parameters())
    assert round(parameters / 1e6, decimals) == millions
