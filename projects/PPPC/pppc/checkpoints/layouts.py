"""The names that other projects give to the tensors of the same networks.

Each layout is one function from our names to theirs, so that every tensor of ours has a place in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["LAYOUTS", "NOT_IN_AN_ENCODER", "Layout"]

State = Mapping[str, Tensor]
Names = str | tuple[str, ...]

NOT_IN_AN_ENCODER = {
    "sem_seg_head.": "the file holds an encoder",
    "probabilistic_head.": "the file holds an encoder",
}


@dataclass(frozen=True)
class Layout:
    """Names of one project.

    Attributes:
        title: what files of this layout are.
        mark: pattern of the start of a name that no other layout has.
        rename: our name, without "student.", to theirs; or to several whose tensors ours holds one
            after the other along the first dimension; None: the layout has no place for it.
        dropped: reasons, by pattern, for their keys that have no use here.
        lacks: reasons, by prefix of our names, for tensors that such files need not hold.
        decoder: MODEL.SEM_SEG_HEAD.NAME of the decoder in the file; empty: it has none.
        read: their state dictionary in the form that ``rename`` names: variants of names made one,
            and fused tensors split.
    """

    title: str
    mark: str
    rename: Callable[[str], Names | None]
    dropped: Mapping[str, str] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    decoder: str = ""
    read: Callable[[State], State] = dict

    def reason(self, key: str) -> str | None:
        """Why a tensor of theirs has no use here; None: it should have one."""
        return next((why for start, why in self.dropped.items() if re.match(start, key)), None)


def _substitute(key: str | None, rules: Iterable[tuple[str, str | Callable]]) -> str | None:
    """The first rule whose pattern matches the start of ``key``; None: no rule does, or no key."""
    for pattern, replacement in rules if key is not None else ():
        renamed, count = re.subn(rf"\A{pattern}", replacement, key)
        if count:
            return renamed
    return None


def _stage(template: str, offset: int = 1) -> Callable[[re.Match], str]:
    """Fill a template with a stage's number, counted from ``offset``, and the other groups."""
    return lambda match: template.format(int(match[1]) + offset, *match.groups()[1:])


_MIT = (
    (r"model\.patch_embed\.", "patch_embed1."),
    (r"model\.stages_(\d)\.downsample\.", _stage("patch_embed{}.")),
    (r"model\.stages_(\d)\.norm\.", _stage("norm{}.")),
    (r"model\.stages_(\d)\.blocks\.(.+)\.dwconv\.", _stage("block{}.{}.dwconv.dwconv.")),
    (r"model\.stages_(\d)\.blocks\.", _stage("block{}.")),
)
_RESNET_V1C = (
    (r"model\.conv1\.", "stem."),
    (r"model\.bn1\.", "stem.7."),
    (r"model\.layer", "layer"),
)


def _mit_encoder(key: str) -> str | None:
    return _substitute(key.removeprefix("backbone."), _MIT)


def _resnet_v1c_encoder(key: str) -> str | None:
    return _substitute(key.removeprefix("backbone."), _RESNET_V1C)


_CONV = (
    (r"(.*)\.norm\.", r"\1.bn."),
    (r"(.*)\.(weight|bias)\Z", r"\1.conv.\2"),
)
_SEPARABLE = (
    (r"(.*)\.0\.norm\.", r"\1.depthwise_conv.bn."),
    (r"(.*)\.1\.norm\.", r"\1.pointwise_conv.bn."),
    (r"(.*)\.0\.weight\Z", r"\1.depthwise_conv.conv.weight"),
    (r"(.*)\.1\.weight\Z", r"\1.pointwise_conv.conv.weight"),
)


def _openmmlab_conv(key: str) -> str | None:
    """A convolution with normalization, plain or separable, in mmcv's names."""
    separable = re.match(r".*(branches\.\d|fuse\.\d)\.[01]\.", key)
    return _substitute(key, _SEPARABLE if separable else _CONV)


def _openmmlab(key: str) -> str | None:
    part, _, rest = key.partition(".")
    if part == "backbone":
        encoder = _mit_encoder(rest) or _resnet_v1c_encoder(rest)
        return encoder and f"backbone.{encoder}"
    if part == "probabilistic_head":
        if rest.startswith("log_variance."):
            return rest.replace("log_variance.", "auxiliary_head.uncertain_head.", 1)
        index, _, tensor = rest.removeprefix("mean.").partition(".")
        conv, layer = divmod(int(index), 3)  # convolution, BatchNorm, ReLU
        return f"auxiliary_head.convs.{conv}.{('conv', 'bn')[layer]}.{tensor}"
    if rest.startswith("classifier.1."):
        return f"decode_head.conv_seg.{rest.removeprefix('classifier.1.')}"
    if rest.startswith("embeddings.stage"):
        return _substitute(
            rest, [(r"embeddings\.stage(\d)\.", _stage("decode_head.embed_layers.{}.proj.", -1))]
        )
    conv = _openmmlab_conv(rest)
    return conv and "decode_head." + conv


def _daformer(key: str) -> str | None:
    return _substitute(
        _openmmlab(key),
        [
            (r"decode_head\.aspp\.branches\.", "decode_head.fuse_layer.aspp_modules."),
            (r"decode_head\.aspp\.", "decode_head.fuse_layer."),
            ("", ""),
        ],
    )


def _deeplab(key: str) -> str | None:
    return _substitute(
        _openmmlab(key),
        [
            (r"decode_head\.aspp\.branches\.", "decode_head.aspp_modules."),
            (r"decode_head\.aspp\.image_pool\.", "decode_head.image_pool.1."),
            (r"decode_head\.aspp\.", "decode_head."),
            (r"decode_head\.low_level\.", "decode_head.c1_bottleneck."),
            (r"decode_head\.fuse\.", "decode_head.sep_bottleneck."),
            ("", ""),
        ],
    )


def _segformer(key: str) -> str | None:
    return _substitute(
        _openmmlab(key),
        [
            (r"decode_head\.embed_layers\.(\d)\.", _stage("decode_head.linear_c{}.")),
            (r"decode_head\.fuse\.", "decode_head.linear_fuse."),
            (r"decode_head\.conv_seg\.", "decode_head.linear_pred."),
            ("", ""),
        ],
    )


_HF_BLOCK = (
    ("norm1.", "layer_norm_1."),
    ("norm2.", "layer_norm_2."),
    ("attn.q.", "attention.self.query."),
    ("attn.kv.", ("attention.self.key.", "attention.self.value.")),
    ("attn.sr.", "attention.self.sr."),
    ("attn.norm.", "attention.self.layer_norm."),
    ("attn.proj.", "attention.output.dense."),
    ("mlp.fc1.", "mlp.dense1."),
    ("mlp.fc2.", "mlp.dense2."),
    ("mlp.dwconv.", "mlp.dwconv.dwconv."),
)


def _in_block(key: str, place: str, table: Iterable[tuple[str, Names]]) -> Names | None:
    """Names in a transformer block at ``place``, a template of stage and block; None: no block."""
    if match := re.fullmatch(r"model\.stages_(\d)\.blocks\.(\d+)\.(.+)", key):
        for ours, theirs in table:
            if match[3].startswith(ours):
                names = (theirs,) if isinstance(theirs, str) else theirs
                start, end = place.format(match[1], match[2]), match[3].removeprefix(ours)
                full = tuple(start + name + end for name in names)
                return full if len(full) > 1 else full[0]
    return None


def _hugging_face(key: str) -> Names | None:
    part, _, rest = key.partition(".")
    if part == "backbone":
        if names := _in_block(rest, "segformer.encoder.block.{}.{}.", _HF_BLOCK):
            return names
        patch = "segformer.encoder.patch_embeddings.{}."
        rules = [
            (r"model\.patch_embed\.norm\.", patch.format(0) + "layer_norm."),
            (r"model\.patch_embed\.", patch.format(0)),
            (r"model\.stages_(\d)\.downsample\.norm\.", _stage(patch + "layer_norm.", 0)),
            (r"model\.stages_(\d)\.downsample\.", _stage(patch, 0)),
            (r"model\.stages_(\d)\.norm\.", _stage("segformer.encoder.layer_norm.{}.", 0)),
        ]
        return _substitute(rest, rules)
    if part == "sem_seg_head":
        rules = [
            (r"embeddings\.stage(\d)\.", _stage("decode_head.linear_c.{}.proj.", -1)),
            (r"fuse\.norm\.", "decode_head.batch_norm."),
            (r"fuse\.", "decode_head.linear_fuse."),
            (r"classifier\.1\.", "decode_head.classifier."),
        ]
        return _substitute(rest, rules)
    return None


def _with_segformer(state: State) -> State:
    """The encoder's files lack the first part of the names."""
    known = re.compile("segformer|decode_head|classifier")
    return {key if known.match(key) else f"segformer.{key}": state[key] for key in state}


# Query, key and value are fused as in torch.nn.MultiheadAttention, and linear maps are 1x1
# convolutions; see _split_mmseg.
_MMSEG_BLOCK = (
    ("norm1.", "norm1."),
    ("norm2.", "norm2."),
    ("attn.q.", "attn.attn.query."),
    ("attn.kv.", ("attn.attn.key.", "attn.attn.value.")),
    ("attn.sr.", "attn.sr."),
    ("attn.norm.", "attn.norm."),
    ("attn.proj.", "attn.attn.out_proj."),
    ("mlp.fc1.", "ffn.layers.0."),
    ("mlp.dwconv.", "ffn.layers.1."),
    ("mlp.fc2.", "ffn.layers.4."),
)
_QKV = ("query", "key", "value")


def _split_mmseg(state: State) -> State:
    """Query, key and value by themselves, 1x1 convolutions as linear maps."""
    result = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"(.*\.attn\.attn\.)in_proj_(weight|bias)", key):
            result |= {f"{match[1]}{name}.{match[2]}": t for name, t in zip(_QKV, tensor.chunk(3))}
        elif re.search(r"\.ffn\.layers\.[04]\.weight\Z", key):
            result[key] = tensor.flatten(1)
        else:
            result[key] = tensor
    return result


def _mmseg_mit_encoder(key: str) -> Names | None:
    key = key.removeprefix("backbone.")
    if names := _in_block(key, "layers.{}.1.{}.", _MMSEG_BLOCK):
        return names
    rules = [
        (r"model\.patch_embed\.proj\.", "layers.0.0.projection."),
        (r"model\.patch_embed\.norm\.", "layers.0.0.norm."),
        (r"model\.stages_(\d)\.downsample\.proj\.", _stage("layers.{}.0.projection.", 0)),
        (r"model\.stages_(\d)\.downsample\.norm\.", _stage("layers.{}.0.norm.", 0)),
        (r"model\.stages_(\d)\.norm\.", _stage("layers.{}.2.", 0)),
    ]
    return _substitute(key, rules)


def _mmseg_segformer(key: str) -> Names | None:
    if key.startswith("backbone."):
        names = _mmseg_mit_encoder(key)
        if isinstance(names, tuple):
            return tuple(f"backbone.{name}" for name in names)
        return names and f"backbone.{names}"
    return _substitute(
        _openmmlab(key),
        [
            (r"decode_head\.embed_layers\.(\d)\.proj\.norm\.", r"decode_head.convs.\1.bn."),
            (r"decode_head\.embed_layers\.(\d)\.proj\.", r"decode_head.convs.\1.conv."),
            (r"decode_head\.fuse\.", "decode_head.fusion_conv."),
            ("", ""),
        ],
    )


# Of a block without expansion (timm's depthwise separable convolution), and of one with.
_LITE_SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv",
                   "bn2": "_bn2"}  # fmt: skip
_LITE_INVERTED = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv",
                  "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip


def _efficientnet_lite(key: str) -> str | None:
    key = key.removeprefix("backbone.model.")
    if match := re.fullmatch(r"blocks\.(\d+\.\d+)\.(\w+)\.(.+)", key):
        # The first stage alone has blocks without expansion.
        names = _LITE_SEPARABLE if match[1].startswith("0.") else _LITE_INVERTED
        return f"_blocks.{match[1]}.{names[match[2]]}.{match[3]}" if match[2] in names else None
    return _substitute(key, [(r"conv_stem\.", "_conv_stem."), (r"bn1\.", "_bn0.")])


def _in_stages(state: State) -> State:
    """Blocks numbered within stages. A stage is what gives as many channels as the block before."""
    channels = {
        int(key.split(".")[1]): len(tensor)
        for key, tensor in state.items()
        if re.fullmatch(r"_blocks\.\d+\._project_conv\.weight", key)
    }
    places: dict[int, str] = {}
    stage, block = -1, 0
    for number in sorted(channels):
        if channels[number] == channels.get(number - 1):
            block += 1
        else:
            stage, block = stage + 1, 0
        places[number] = f"{stage}.{block}"
    return {
        re.sub(r"\A_blocks\.(\d+)", lambda m: f"_blocks.{places.get(int(m[1]), m[1])}", key): tensor
        for key, tensor in state.items()
    }


_OPENMMLAB_DROPPED = {
    r"imnet_model\.": "the ImageNet network of DAFormer's feature distance",
    r"auxiliary_head\.(?!uncertain_head\.|convs\.)": "an auxiliary head that is not used",
    r"decode_head\.scale_attention\.": "HRDA's attention over scales",
}
_NO_VARIANCES = {"probabilistic_head.": "the file has no head with variances"}


def _unwrap_hrda(state: State) -> State:
    return {k.replace("decode_head.head.", "decode_head.", 1): state[k] for k in state}


#: The names that other projects give to a network's weights; whole networks before encoders alone.
LAYOUTS: dict[str, Layout] = {
    "hugging_face": Layout(
        "Hugging Face's SegFormer",
        r"(segformer\.)?encoder\.patch_embeddings\.",
        _hugging_face,
        {r"classifier\.": "the ImageNet classifier"},
        {"probabilistic_head.": "the file has no such head"},
        "SegFormerHead",
        _with_segformer,
    ),
    "mmseg_segformer": Layout(
        "mmsegmentation's SegFormer",
        r"decode_head\.fusion_conv\.",
        _mmseg_segformer,
        _OPENMMLAB_DROPPED,
        _NO_VARIANCES,
        "ConvSegFormerHead",
        _split_mmseg,
    ),
    "segformer": Layout(
        "NVIDIA's SegFormer",
        r"decode_head\.linear_pred\.",
        _segformer,
        {
            **_OPENMMLAB_DROPPED,
            r"decode_head\.conv_seg\.": "a classifier that SegFormer never uses",
        },
        _NO_VARIANCES,
        "SegFormerHead",
    ),
    "daformer": Layout(
        "DAFormer's network (also of PPPC, SePiCo, HRDA and MIC)",
        r"decode_head\.(head\.)?embed_layers\.",
        _daformer,
        _OPENMMLAB_DROPPED,
        _NO_VARIANCES,
        "DAFormerHead",
        _unwrap_hrda,
    ),
    "deeplab": Layout(
        "mmsegmentation's DeepLabV3+ (also of PPPC)",
        r"decode_head\.c1_bottleneck\.",
        _deeplab,
        _OPENMMLAB_DROPPED,
        _NO_VARIANCES,
        "SeparableDeepLabV3PlusHead",
    ),
    "mit": Layout(
        "SegFormer's ImageNet encoder",
        r"patch_embed1\.",
        _mit_encoder,
        {r"head\.": "the ImageNet classifier"},
        NOT_IN_AN_ENCODER,
    ),
    "mmseg_mit": Layout(
        "mmsegmentation's MiT encoder",
        r"layers\.0\.0\.projection\.",
        _mmseg_mit_encoder,
        {r"head\.": "the ImageNet classifier"},
        NOT_IN_AN_ENCODER,
        read=_split_mmseg,
    ),
    "resnet_v1c": Layout(
        "OpenMMLab's ResNet v1c encoder",
        r"stem\.7\.",
        _resnet_v1c_encoder,
        {r"fc\.": "the ImageNet classifier"},
        NOT_IN_AN_ENCODER,
    ),
    "efficientnet_lite": Layout(
        "efficientnet-lite-pytorch's ImageNet encoder",
        r"_conv_stem\.",
        _efficientnet_lite,
        {r"_(conv_head|bn1|fc)\.": "layers after the last feature map"},
        NOT_IN_AN_ENCODER,
        read=_in_stages,
    ),
}
