"""Networks written from the published layer tables, with the published names, to compare ours with."""

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet


class ConvModule(nn.Module):
    def __init__(self, i, o, kernel, dilation=1, groups=1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(i, o, kernel, 1, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Separable(nn.Module):
    def __init__(self, i, o, dilation=1):
        super().__init__()
        self.depthwise_conv = ConvModule(i, i, 3, dilation, i)
        self.pointwise_conv = ConvModule(i, o, 1)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


def up(x, like):
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class DeepLabV3Plus(nn.Module):
    def __init__(self, classes=19):
        super().__init__()
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(2048, 512, 1))
        self.aspp_modules = nn.ModuleList(
            [ConvModule(2048, 512, 1), *(Separable(2048, 512, d) for d in (12, 24, 36))]
        )
        self.bottleneck = ConvModule(5 * 512, 512, 3)
        self.c1_bottleneck = ConvModule(256, 48, 1)
        self.sep_bottleneck = nn.Sequential(Separable(560, 512), Separable(512, 512))
        self.conv_seg = nn.Conv2d(512, classes, 1)

    def forward(self, features):
        fine, coarse = features[0], features[3]
        x = [up(self.image_pool(coarse), coarse), *(m(coarse) for m in self.aspp_modules)]
        x = self.bottleneck(torch.cat(x, 1))
        fine = self.c1_bottleneck(fine)
        return self.conv_seg(self.sep_bottleneck(torch.cat([up(x, fine), fine], 1)))


class UncertainHead(nn.Module):
    def __init__(self, i, o=512):
        super().__init__()
        self.fc1, self.fc2 = nn.Parameter(torch.randn(o, i)), nn.Parameter(torch.randn(o, o))
        self.bn1, self.bn2 = nn.BatchNorm2d(o), nn.BatchNorm2d(o, affine=False)
        self.gamma, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        def linear(x, weight):
            rows = weight / weight.norm(dim=1, keepdim=True)
            return torch.einsum("nihw,oi->nohw", x, rows)

        x = self.bn2(linear(F.relu(self.bn1(linear(x, self.fc1))), self.fc2))
        odds = (self.gamma * x + self.beta).clamp(max=80).exp() + 1e-6
        return odds / (1 + odds)


class Projection(nn.Module):
    def __init__(self, i, mid):
        super().__init__()
        self.convs = nn.Sequential(ConvModule(i, mid, 1), ConvModule(mid, 512, 1))
        self.uncertain_head = UncertainHead(i)

    def forward(self, x):
        mean = self.convs(x)
        return mean / mean.norm(dim=1, keepdim=True), self.uncertain_head(x)


class ResNetV1c(ResNet):
    """torchvision's ResNet-101, dilated at stride 8, with the deep stem of 32-32-64 channels."""

    def __init__(self):
        super().__init__(
            Bottleneck, [3, 4, 23, 3], replace_stride_with_dilation=[False, True, True]
        )
        del self.fc, self.conv1, self.bn1
        relu = nn.ReLU()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), relu,
            nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), relu,
            nn.Conv2d(32, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), relu,
        )  # fmt: skip

    def forward(self, x):
        x, features = self.maxpool(self.stem(x)), []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features.append(x := layer(x))
        return features


class PublishedR101(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.decode_head = ResNetV1c(), DeepLabV3Plus()
        self.auxiliary_head = Projection(2048, 2048)

    def forward(self, x):
        features = self.backbone(x)
        return self.decode_head(features), *self.auxiliary_head(features[3])


def grid(tokens, size):
    return tokens.transpose(1, 2).unflatten(2, size)


def tokens(maps):
    return maps.flatten(2).transpose(1, 2)


class MMSegAttention(nn.Module):
    """mmsegmentation's: PyTorch's attention, whose keys and values are of a smaller map."""

    def __init__(self, width, heads, reduction):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, size):
        context = x
        if hasattr(self, "sr"):
            context = self.norm(tokens(self.sr(grid(x, size))))
        return self.attn(x, context, context)[0]


class MMSegBlock(nn.Module):
    def __init__(self, width, heads, reduction):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = MMSegAttention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.ffn = nn.Module()
        self.ffn.layers = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
            nn.GELU(), nn.Dropout(0.0),
            nn.Conv2d(4 * width, width, 1), nn.Dropout(0.0),
        )  # fmt: skip

    def forward(self, x, size):
        x = x + self.attn(self.norm1(x), size)
        return x + tokens(self.ffn.layers(grid(self.norm2(x), size)))


class MMSegPatches(nn.Module):
    def __init__(self, inputs, width, kernel, stride):
        super().__init__()
        self.projection = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        x = self.projection(x)
        return self.norm(tokens(x)), x.shape[2:]


class MMSegMiT(nn.Module):
    """MiT-B0 in mmsegmentation's modules: patches, blocks and norm of a stage are a list of three."""

    def __init__(self, widths=(32, 64, 160, 256), heads=(1, 2, 5, 8), reductions=(8, 4, 2, 1)):
        super().__init__()
        self.layers = nn.ModuleList()
        for i, width in enumerate(widths):
            inputs, kernel, stride = (widths[i - 1], 3, 2) if i else (3, 7, 4)
            blocks = [MMSegBlock(width, heads[i], reductions[i]) for _ in range(2)]
            self.layers.append(
                nn.ModuleList(
                    [MMSegPatches(inputs, width, kernel, stride), nn.ModuleList(blocks),
                     nn.LayerNorm(width, eps=1e-6)]
                )
            )  # fmt: skip

    def forward(self, x):
        features = []
        for patches, blocks, norm in self.layers:
            x, size = patches(x)
            for block in blocks:
                x = block(x, size)
            features.append(x := grid(norm(x), size))
        return features


class MMSegSegFormer(nn.Module):
    """mmsegmentation's SegFormer: normalization and ReLU after each stage's map, finest stage first."""

    def __init__(self, classes=19):
        super().__init__()
        self.backbone = MMSegMiT()
        self.decode_head = nn.Module()
        self.decode_head.convs = nn.ModuleList(ConvModule(c, 256, 1) for c in (32, 64, 160, 256))
        self.decode_head.fusion_conv = ConvModule(1024, 256, 1)
        self.decode_head.conv_seg = nn.Conv2d(256, classes, 1)

    def forward(self, x):
        features, head = self.backbone(x), self.decode_head
        maps = [up(conv(f), features[0]) for conv, f in zip(head.convs, features)]
        return head.conv_seg(head.fusion_conv(torch.cat(maps, 1)))
