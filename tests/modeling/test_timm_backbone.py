"""Encoders: maps at the stated strides, MiT of the published sizes, clear errors."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from pppc.modeling.timm_backbone import TimmBackbone
from timm.layers import DropPath
from tiny_run import tiny_config


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [
        ("mit_b0", 32),
        ("resnet18", 32),
        ("resnet18", 8),
        ("mobilenetv3_small_100", 32),
        ("mobilenetv3_small_100", 16),
        ("convnext_atto", 32),
        ("mambaout_femto", 32),  # timm returns its maps channels last
        ("dla34", 32),  # fails on sizes that are no multiples of 32
    ],
)
def test_four_maps_at_the_stated_strides(name: str, output_stride: int) -> None:
    backbone = TimmBackbone(name, output_stride=output_stride)
    with torch.no_grad():
        features = backbone(torch.zeros(2, 3, 64, 96))
    shapes = backbone.output_shape()
    assert list(features) == list(shapes) == ["stage1", "stage2", "stage3", "stage4"]
    for stage, stride in zip(features, (4, 8, 16, 32)):
        assert shapes[stage].stride == min(stride, output_stride)
        channels, stride = shapes[stage].channels, shapes[stage].stride
        assert features[stage].shape == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    ("name", "min_size", "multiple"),
    [
        ("resnet18", 1, 1),
        ("mit_b0", 32, 1),
        ("hrnet_w18_small", 32, 32),
        ("dla46_c", 32, 32),
        ("tresnet_m", 32, 32),
        ("inception_v3", 128, 1),
    ],
)
def test_images_of_any_size_give_scores_of_their_size(name, min_size, multiple) -> None:
    """What an encoder needs is known when it is built, and the network pads images to that."""
    opts = ["MODEL.TIMM.NAME", name, "MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead"]
    model = build_model(tiny_config(Path("unused"), *opts)).eval()
    backbone, student = model.student.backbone, model.student
    assert (backbone.min_size, backbone.size_divisibility) == (min_size, multiple)
    for height, width in ((1, 1), (5, 70), (75, 150), (107, 86)):
        (output,) = model([{"image": 255 * torch.rand(3, height, width)}])
        assert output["sem_seg"].shape[1:] == (height, width)
        assert output["sem_seg"].isfinite().all()
    # What is padded is ImageNet's mean, so zeros to the encoder, and the rest is the image's.
    image = 255 * torch.rand(1, 3, 75, 150)
    seen = []
    backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        student(image, embedding=False)
    expected = (image - student.pixel_mean) / student.pixel_std
    torch.testing.assert_close(seen[0][..., :75, :150], expected)
    assert not seen[0][..., 75:, :].any() and not seen[0][..., 150:].any()
    assert seen[0].shape[-2] % multiple == 0 and seen[0].shape[-2] >= min_size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "restnet18"}, "no model 'restnet18'; did you mean one of resnet18"),
        ({"name": "vit_tiny_patch16_224"}, "one size only"),
        ({"name": "mit_b0", "output_stride": 8}, "mit_b0, MODEL.TIMM.OUTPUT_STRIDE 8"),
        ({"name": "vgg11", "drop_path_rate": 0.1}, "vgg11, MODEL.TIMM.DROP_PATH_RATE 0.1"),
        ({"name": "mit_b0", "pretrained": True}, "No pretrained weights exist for mit_b0"),
        ({"name": "shvit_s1"}, "strides .16, 32, 64.; four are needed"),
    ],
)
def test_an_encoder_that_does_not_fit_is_named(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TimmBackbone(**arguments)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # The encoders' sizes in SegFormer (arXiv 2105.15203), table 1.
        ("mit_b0", 3.3),
        ("mit_b1", 13.2),
        ("mit_b2", 24.2),
        ("mit_b3", 44.1),
        ("mit_b4", 60.8),
        ("mit_b5", 81.4),
    ],
)
def test_mit_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in TimmBackbone(name).parameters())
    assert round(parameters / 1e6, 1) == millions


def test_mit_drop_path_is_linear_over_the_depth() -> None:
    backbone = TimmBackbone("mit_b2", drop_path_rate=0.1)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    # 16 blocks of two residual branches; the first block drops nothing and so has no module.
    expected = [0.1 * block / 15 for block in range(1, 16) for _ in range(2)]
    assert rates == pytest.approx(expected)
