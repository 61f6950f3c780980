"""The names that other projects give to the tensors of the same networks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

State = Mapping[str, Tensor]
Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]

NOT_IN_AN_ENCODER = {
    "backbone.pyramid.": "the file holds an encoder",
    "sem_seg_head.": "the file holds an encoder",
    "probabilistic_head.": "the file holds an encoder",
}


@dataclass(frozen=True)
class Layout:
    """Names of one project.

    Attributes:
        title: what files of this layout are.
        mark: pattern of the start of a name that no other layout has.
        rules: patterns and what to put in their place, one after the other, from our names without
            "student." to theirs.
        dropped: reasons, by pattern, for their keys that have no use here.
        lacks: reasons, by prefix of our names, for tensors that such files need not hold.
        decoder: MODEL.SEM_SEG_HEAD.NAME of the decoder in the file; empty: it has none.
        read: their state dictionary in the form that the rules name: variants of names made one, and
            fused tensors split.
    """

    title: str
    mark: str
    rules: Rules
    dropped: Mapping[str, str] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=lambda: NOT_IN_AN_ENCODER)
    decoder: str = ""
    read: Callable[[State], State] = dict

    def rename(self, key: str) -> tuple[str, ...]:
        """Their name of a tensor of ours.

        Several where ours holds theirs one after the other along the first dimension; one that no file
        has where they have no such tensor.
        """
        for pattern, replacement in self.rules:
            key = re.sub(pattern, replacement, key)
        if match := re.fullmatch(r"(.*)\((\w+),(\w+)\)(.*)", key):
            return tuple(match[1] + part + match[4] for part in (match[2], match[3]))
        return (key,)

    def reason(self, key: str) -> str | None:
        """Why a tensor of theirs has no use here; None: it should have one."""
        return next((why for start, why in self.dropped.items() if re.match(start, key)), None)


def _stage(template: str, offset: int) -> Callable[[re.Match], str]:
    """Fill a template with the number of a stage, counted otherwise."""
    return lambda match: template.format(int(match[1]) + offset)


def _mean_branch(match: re.Match) -> str:
    convolution, layer = divmod(int(match[1]), 3)  # convolution, BatchNorm, ReLU
    return f"auxiliary_head.convs.{convolution}.{('conv', 'bn')[layer]}."


_ALONE: Rules = ((r"^backbone\.", ""),)  # of an encoder's file
_MIT: Rules = (
    (r"^backbone\.model\.", "backbone."),
    (r"^backbone\.patch_embed\.", "backbone.patch_embed1."),
    (r"^backbone\.stages_(\d)\.downsample\.", _stage("backbone.patch_embed{}.", 1)),
    (r"^backbone\.stages_(\d)\.norm\.", _stage("backbone.norm{}.", 1)),
    (r"^(backbone\.stages_.*)\.dwconv\.", r"\1.dwconv.dwconv."),
    (r"^backbone\.stages_(\d)\.blocks\.", _stage("backbone.block{}.", 1)),
)
_RESNET_V1C: Rules = (
    (r"^backbone\.model\.", "backbone."),
    (r"^backbone\.conv1\.", "backbone.stem."),
    (r"^backbone\.bn1\.", "backbone.stem.7."),
)
# Query, key and value are fused as in torch.nn.MultiheadAttention, and linear maps are 1x1
# convolutions; see _split_mmseg.
_MMSEG_MIT: Rules = (
    (r"^backbone\.model\.", "backbone."),
    (r"^backbone\.patch_embed\.", "backbone.stages_0.downsample."),
    (r"^backbone\.stages_(\d)\.downsample\.proj\.", r"backbone.layers.\1.0.projection."),
    (r"^backbone\.stages_(\d)\.downsample\.norm\.", r"backbone.layers.\1.0.norm."),
    (r"^backbone\.stages_(\d)\.norm\.", r"backbone.layers.\1.2."),
    (r"^backbone\.stages_(\d)\.blocks\.", r"backbone.layers.\1.1."),
    (r"\.attn\.q\.", ".attn.attn.query."),
    (r"\.attn\.kv\.", ".attn.attn.(key,value)."),
    (r"\.attn\.proj\.", ".attn.attn.out_proj."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0."),
    (r"\.mlp\.dwconv\.", ".ffn.layers.1."),
    (r"\.mlp\.fc2\.", ".ffn.layers.4."),
)
# Decoders of mmsegmentation's modules: convolutions with normalization, plain or separable.
_HEADS: Rules = (
    (r"^probabilistic_head\.log_variance\.", "auxiliary_head.uncertain_head."),
    (r"^probabilistic_head\.mean\.(\d+)\.", _mean_branch),
    (r"^sem_seg_head\.classifier\.1\.", "decode_head.conv_seg."),
    (r"^sem_seg_head\.embeddings\.stage(\d)\.", _stage("decode_head.embed_layers.{}.proj.", -1)),
    (r"^(sem_seg_head\..*(?:branches|fuse)\.\d)\.0\.norm\.", r"\1.depthwise_conv.bn."),
    (r"^(sem_seg_head\..*(?:branches|fuse)\.\d)\.1\.norm\.", r"\1.pointwise_conv.bn."),
    (r"^(sem_seg_head\..*(?:branches|fuse)\.\d)\.0\.weight$", r"\1.depthwise_conv.conv.weight"),
    (r"^(sem_seg_head\..*(?:branches|fuse)\.\d)\.1\.weight$", r"\1.pointwise_conv.conv.weight"),
    (r"^(sem_seg_head\..*)\.norm\.", r"\1.bn."),
    (r"^(sem_seg_head\.(?!.*\.(?:bn|conv)\.).*)\.(weight|bias)$", r"\1.conv.\2"),
    (r"^sem_seg_head\.", "decode_head."),
)
_DAFORMER: Rules = (
    (r"^decode_head\.aspp\.branches\.", "decode_head.fuse_layer.aspp_modules."),
    (r"^decode_head\.aspp\.", "decode_head.fuse_layer."),
)
_DEEPLAB: Rules = (
    (r"^decode_head\.aspp\.branches\.", "decode_head.aspp_modules."),
    (r"^decode_head\.aspp\.image_pool\.", "decode_head.image_pool.1."),
    (r"^decode_head\.aspp\.", "decode_head."),
    (r"^decode_head\.low_level\.", "decode_head.c1_bottleneck."),
    (r"^decode_head\.fuse\.", "decode_head.sep_bottleneck."),
)
_SEGFORMER: Rules = (
    (r"^decode_head\.embed_layers\.(\d)\.", _stage("decode_head.linear_c{}.", 1)),
    (r"^decode_head\.fuse\.", "decode_head.linear_fuse."),
    (r"^decode_head\.conv_seg\.", "decode_head.linear_pred."),
)
_MMSEG_SEGFORMER: Rules = (
    (r"^decode_head\.embed_layers\.(\d)\.proj\.norm\.", r"decode_head.convs.\1.bn."),
    (r"^decode_head\.embed_layers\.(\d)\.proj\.", r"decode_head.convs.\1.conv."),
    (r"^decode_head\.fuse\.", "decode_head.fusion_conv."),
)
_HUGGING_FACE: Rules = (
    (r"^backbone\.model\.", "segformer.encoder."),
    (r"\.patch_embed\.", ".stages_0.downsample."),
    (r"\.stages_(\d)\.downsample\.norm\.", r".patch_embeddings.\1.layer_norm."),
    (r"\.stages_(\d)\.downsample\.", r".patch_embeddings.\1."),
    (r"\.stages_(\d)\.norm\.", r".layer_norm.\1."),
    (r"\.stages_(\d)\.blocks\.", r".block.\1."),
    (r"^(segformer.*)\.norm(\d)\.", r"\1.layer_norm_\2."),
    (r"\.attn\.q\.", ".attention.self.query."),
    (r"\.attn\.kv\.", ".attention.self.(key,value)."),
    (r"\.attn\.sr\.", ".attention.self.sr."),
    (r"\.attn\.norm\.", ".attention.self.layer_norm."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc(\d)\.", r".mlp.dense\1."),
    (r"\.mlp\.dwconv\.", ".mlp.dwconv.dwconv."),
    (r"^sem_seg_head\.embeddings\.stage(\d)\.", _stage("decode_head.linear_c.{}.proj.", -1)),
    (r"^sem_seg_head\.fuse\.norm\.", "decode_head.batch_norm."),
    (r"^sem_seg_head\.fuse\.", "decode_head.linear_fuse."),
    (r"^sem_seg_head\.classifier\.1\.", "decode_head.classifier."),
)
# The first stage's blocks have no expansion (timm's depthwise separable convolution).
_EFFICIENTNET_LITE: Rules = (
    (r"^backbone\.model\.", ""),
    (r"^conv_stem\.", "_conv_stem."),
    (r"^bn1\.", "_bn0."),
    (r"^blocks\.(0\.\d+)\.bn(\d)\.", r"_blocks.\1._bn\2."),
    (r"^blocks\.(0\.\d+)\.conv_pw\.", r"_blocks.\1._project_conv."),
    (r"^blocks\.(\d\.\d+)\.conv_pw\.", r"_blocks.\1._expand_conv."),
    (r"^blocks\.(\d\.\d+)\.conv_dw\.", r"_blocks.\1._depthwise_conv."),
    (r"^blocks\.(\d\.\d+)\.conv_pwl\.", r"_blocks.\1._project_conv."),
    (r"^blocks\.(\d\.\d+)\.bn(\d)\.", lambda m: f"_blocks.{m[1]}._bn{int(m[2]) - 1}."),
)


def _with_segformer(state: State) -> State:
    """The encoder's files lack the first part of the names."""
    known = re.compile("segformer|decode_head|classifier")
    return {key if known.match(key) else f"segformer.{key}": state[key] for key in state}


def _split_mmseg(state: State) -> State:
    """Query, key and value by themselves, 1x1 convolutions as linear maps."""
    result = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"(.*\.attn\.attn\.)in_proj_(weight|bias)", key):
            names = (f"{match[1]}{name}.{match[2]}" for name in ("query", "key", "value"))
            result |= zip(names, tensor.chunk(3))
        elif re.search(r"\.ffn\.layers\.[04]\.weight\Z", key):
            result[key] = tensor.flatten(1)
        else:
            result[key] = tensor
    return result


def _unwrap_hrda(state: State) -> State:
    return {k.replace("decode_head.head.", "decode_head.", 1): state[k] for k in state}


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
        same = channels[number] == channels.get(number - 1)
        stage, block = (stage, block + 1) if same else (stage + 1, 0)
        places[number] = f"{stage}.{block}"
    return {
        re.sub(r"\A_blocks\.(\d+)", lambda m: f"_blocks.{places.get(int(m[1]), m[1])}", key): tensor
        for key, tensor in state.items()
    }


_IMAGENET = {r"(head|fc)\.": "the ImageNet classifier"}
_UNUSED_HEADS = {
    r"imnet_model\.": "the ImageNet network of DAFormer's feature distance",
    r"auxiliary_head\.(?!uncertain_head\.|convs\.)": "an auxiliary head that is not used",
    r"decode_head\.scale_attention\.": "HRDA's attention over scales",
}
_NO_VARIANCES = {"probabilistic_head.": "the file has no head with variances"}

#: The names that other projects give to a network's weights; whole networks before encoders alone.
LAYOUTS: dict[str, Layout] = {
    "hugging_face": Layout(
        "Hugging Face's SegFormer", r"(segformer\.)?encoder\.patch_embeddings\.", _HUGGING_FACE,
        {r"classifier\.": "the ImageNet classifier"},
        {"probabilistic_head.": "the file has no such head"}, "SegFormerHead", _with_segformer,
    ),
    "mmseg_segformer": Layout(
        "mmsegmentation's SegFormer", r"decode_head\.fusion_conv\.",
        _MMSEG_MIT + _HEADS + _MMSEG_SEGFORMER, _UNUSED_HEADS, _NO_VARIANCES, "ConvSegFormerHead",
        _split_mmseg,
    ),
    "segformer": Layout(
        "NVIDIA's SegFormer", r"decode_head\.linear_pred\.", _MIT + _HEADS + _SEGFORMER,
        {**_UNUSED_HEADS, r"decode_head\.conv_seg\.": "a classifier that SegFormer never uses"},
        _NO_VARIANCES, "SegFormerHead",
    ),
    "daformer": Layout(
        "DAFormer's network (also of PPPC, SePiCo, HRDA and MIC)",
        r"decode_head\.(head\.)?embed_layers\.", _MIT + _HEADS + _DAFORMER, _UNUSED_HEADS,
        _NO_VARIANCES, "DAFormerHead", _unwrap_hrda,
    ),
    "deeplab": Layout(
        "mmsegmentation's DeepLabV3+ (also of PPPC)", r"decode_head\.c1_bottleneck\.",
        _RESNET_V1C + _HEADS + _DEEPLAB, _UNUSED_HEADS, _NO_VARIANCES, "SeparableDeepLabV3PlusHead",
    ),
    "mit": Layout("SegFormer's ImageNet encoder", r"patch_embed1\.", _MIT + _ALONE, _IMAGENET),
    "mmseg_mit": Layout(
        "mmsegmentation's MiT encoder", r"layers\.0\.0\.projection\.", _MMSEG_MIT + _ALONE, _IMAGENET,
        read=_split_mmseg,
    ),
    "resnet_v1c": Layout(
        "OpenMMLab's ResNet v1c encoder", r"stem\.7\.", _RESNET_V1C + _ALONE, _IMAGENET
    ),
    "efficientnet_lite": Layout(
        "efficientnet-lite-pytorch's ImageNet encoder", r"_conv_stem\.", _EFFICIENTNET_LITE,
        {r"_(conv_head|bn1|fc)\.": "layers after the last feature map"}, read=_in_stages,
    ),
}  # fmt: skip
