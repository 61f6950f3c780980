"""Encoders: maps at the stated strides, MiT against the published architecture, clear errors."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from pppc.checkpoints import from_other_layout
from pppc.modeling.timm_backbone import TimmBackbone
from timm.layers import DropPath
from tiny_run import tiny_config
from torch import Tensor, nn


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


@pytest.mark.parametrize(("name", "output_stride"), [("mit_b0", 32), ("resnet18", 8)])
def test_odd_sizes_are_rounded_up(name: str, output_stride: int) -> None:
    with torch.no_grad():
        features = TimmBackbone(name, output_stride=output_stride)(torch.zeros(2, 3, 150, 203))
    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    sizes = [tuple(feature.shape[-2:]) for feature in features.values()]
    assert sizes == [(-(-150 // stride), -(-203 // stride)) for stride in strides]


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


def test_resnet101c_at_stride_8_is_the_published_network() -> None:
    backbone = TimmBackbone("resnet101c", output_stride=8)
    resnet = backbone.model
    stem = [module for module in resnet.conv1 if isinstance(module, nn.Conv2d)]
    assert [(conv.out_channels, conv.kernel_size, conv.stride) for conv in stem] == [
        (32, (3, 3), (2, 2)),
        (32, (3, 3), (1, 1)),
        (64, (3, 3), (1, 1)),
    ]
    stages = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
    assert [len(stage) for stage in stages] == [3, 4, 23, 3]
    assert [stage[0].conv2.stride[0] for stage in stages] == [1, 2, 1, 1]
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in stages]
    assert dilations == [[1] * 3, [1] * 4, [1] + [2] * 22, [2] + [4] * 2]
    assert [shape.channels for shape in backbone.output_shape().values()] == [256, 512, 1024, 2048]
    assert all(parameter.requires_grad for parameter in backbone.parameters())


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
    parameters = sum(parameter.numel() for parameter in TimmBackbone(name).parameters())
    assert round(parameters / 1e6, 1) == millions


def test_mit_drop_path_is_linear_over_the_depth() -> None:
    backbone = TimmBackbone("mit_b2", drop_path_rate=0.1)
    rates = [module.drop_prob for module in backbone.modules() if isinstance(module, DropPath)]
    # 16 blocks of two residual branches; the first block drops nothing and so has no module.
    expected = [0.1 * block / 15 for block in range(1, 16) for _ in range(2)]
    assert rates == pytest.approx(expected)


class PublishedMiT:
    """MiT-B0 from the paper's description, on random weights under the published names."""

    WIDTHS, HEADS, REDUCTIONS, BLOCKS = (32, 64, 160, 256), (1, 2, 5, 8), (8, 4, 2, 1), 2

    def __init__(self):
        self.weights: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)
        previous = 3
        for k, width in enumerate(self.WIDTHS, start=1):
            kernel = 7 if k == 1 else 3
            self._add(f"patch_embed{k}.proj", width, previous, kernel, kernel)
            self._add(f"patch_embed{k}.norm", width)
            for block in (f"block{k}.{i}" for i in range(self.BLOCKS)):
                reduction = self.REDUCTIONS[k - 1]
                if reduction > 1:
                    self._add(f"{block}.attn.sr", width, width, reduction, reduction)
                    self._add(f"{block}.attn.norm", width)
                for layer, outputs, inputs in (
                    ("attn.q", width, width),
                    ("attn.kv", 2 * width, width),
                    ("attn.proj", width, width),
                    ("mlp.fc1", 4 * width, width),
                    ("mlp.fc2", width, 4 * width),
                ):
                    self._add(f"{block}.{layer}", outputs, inputs)
                self._add(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
                self._add(f"{block}.norm1", width)
                self._add(f"{block}.norm2", width)
            self._add(f"norm{k}", width)
            previous = width
        self._add("head", 1000, previous)

    def _add(self, layer: str, *shape: int) -> None:
        fan_in = max(torch.Size(shape[1:]).numel(), 1)
        for kind, size in (("weight", shape), ("bias", shape[:1])):
            values = torch.randn(size, generator=self._generator) / fan_in**0.5
            self.weights[f"{layer}.{kind}"] = values

    def _of(self, layer: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{layer}.weight"], self.weights[f"{layer}.bias"]

    def _norm(self, tokens: Tensor, layer: str, eps: float) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], *self._of(layer), eps=eps)

    def _attention(self, tokens: Tensor, size: tuple[int, int], name: str, k: int) -> Tensor:
        heads, reduction = self.HEADS[k], self.REDUCTIONS[k]

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        context = tokens
        if reduction > 1:
            grid = tokens.transpose(1, 2).unflatten(-1, size)
            reduced = F.conv2d(grid, *self._of(f"{name}.sr"), stride=reduction)
            context = self._norm(reduced.flatten(2).transpose(1, 2), f"{name}.norm", 1e-5)
        query = split(F.linear(tokens, *self._of(f"{name}.q")))
        key, value = map(split, F.linear(context, *self._of(f"{name}.kv")).chunk(2, dim=-1))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
        return F.linear(mixed, *self._of(f"{name}.proj"))

    def _mlp(self, tokens: Tensor, size: tuple[int, int], name: str) -> Tensor:
        hidden = F.linear(tokens, *self._of(f"{name}.fc1")).transpose(1, 2).unflatten(-1, size)
        depthwise = self._of(f"{name}.dwconv.dwconv")
        hidden = F.conv2d(hidden, *depthwise, padding=1, groups=hidden.shape[1])
        return F.linear(F.gelu(hidden.flatten(2).transpose(1, 2)), *self._of(f"{name}.fc2"))

    def __call__(self, image: Tensor) -> list[Tensor]:
        features, x = [], image
        for k in range(4):
            weight, bias = self._of(f"patch_embed{k + 1}.proj")
            x = F.conv2d(x, weight, bias, stride=2 if k else 4, padding=weight.shape[-1] // 2)
            size = tuple(x.shape[-2:])
            tokens = x.flatten(2).transpose(1, 2)
            tokens = self._norm(tokens, f"patch_embed{k + 1}.norm", 1e-5)
            for i in range(self.BLOCKS):
                block = f"block{k + 1}.{i}"
                normed = self._norm(tokens, f"{block}.norm1", 1e-6)
                tokens = tokens + self._attention(normed, size, f"{block}.attn", k)
                normed = self._norm(tokens, f"{block}.norm2", 1e-6)
                tokens = tokens + self._mlp(normed, size, f"{block}.mlp")
            tokens = self._norm(tokens, f"norm{k + 1}", 1e-6)
            x = tokens.transpose(1, 2).unflatten(-1, size)
            features.append(x)
        return features


def test_published_mit_weights_give_the_published_features() -> None:
    published = PublishedMiT()
    backbone = TimmBackbone("mit_b0", drop_path_rate=0.1).eval()
    names = [f"backbone.{key}" for key in backbone.state_dict()]
    weights = from_other_layout(published.weights, names, "mit_b0.pth").state
    prefix = "student.backbone."
    backbone.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items()}, strict=True)
    image = torch.randn(2, 3, 72, 101, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, theirs in zip(backbone(image).values(), published(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
