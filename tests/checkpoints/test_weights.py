"""Other projects' weights give other projects' outputs; what does not fit is an error."""

import re

import huggingface_hub
import pytest
import torch
from conftest import REPOSITORY
from detectron2.modeling import build_model
from pppc import load_config
from pppc.checkpoints import LAYOUTS
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import InputError
from published_networks import MMSegSegFormer, PublishedR101
from torch import Tensor, nn
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
)

SEGFORMER = ["MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead"]


def configuration(name: str, *opts: object):
    return load_config(REPOSITORY / f"configs/{name}.yaml", ["MODEL.DEVICE", "cpu", *opts])


@pytest.fixture(scope="module")
def r101():
    return build_model(configuration("gta_to_cityscapes_pppc_r101"))


@pytest.fixture(scope="module")
def daformer():
    """The DAFormer decoder and the published projection head on MiT-B0."""
    return build_model(configuration("gta_to_cityscapes_pppc_mit_b5", "MODEL.TIMM.NAME", "mit_b0"))


@pytest.fixture(scope="module")
def segformer():
    return build_model(configuration("gta_to_cityscapes_pppc_mit_b5", *SEGFORMER))


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every tensor random, running statistics included, and outputs of a moderate size."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif tensor.is_floating_point() and "gamma" not in name:
            center = 1.0 if re.search(r"(bn|norm|\.1|\.4|\.7)\d?\.weight$", name) else 0.0
            tensor.normal_(center, 0.1, generator=generator)
    return module.eval()


@torch.no_grad()
def student_output(model: nn.Module, image: Tensor, embedding: bool = True):
    """Of normalized images."""
    student = model.student.eval()
    return student(image * student.pixel_std + student.pixel_mean, embedding=embedding)


def load(model: nn.Module, state: dict, tmp_path, name: str = "weights.pth", wrap="state_dict"):
    path = tmp_path / name
    torch.save({wrap: state, "meta": {"epoch": 3}} if wrap else state, path)
    StrictCheckpointer(model).load(str(path))


def theirs_of(model: nn.Module, layout: str) -> dict:
    """The student's weights under another project's names."""
    rename = LAYOUTS[layout].rename
    state = model.student.state_dict()
    parts = ("backbone.", "sem_seg_head.") if LAYOUTS[layout].decoder else ("backbone.",)
    return {rename(key)[0]: tensor for key, tensor in state.items() if key.startswith(parts)}


def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(9))


def close(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 1e-3  # or anything would agree
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.fixture(scope="module")
def published_r101():
    return randomize(PublishedR101())


def test_released_network_gives_the_published_outputs(r101, published_r101, tmp_path):
    state = published_r101.state_dict()
    assert round(sum(p.numel() for p in published_r101.parameters()) / 1e6, 3) == 66.777
    # As the authors' checkpoints hold it: student and teacher, and an unused classifier.
    both = {f"model.{k}": v for k, v in state.items()}
    both |= {f"ema_model.{k}": v for k, v in state.items()}
    both["model.auxiliary_head.conv_seg.weight"] = torch.zeros(19, 512, 1, 1)
    load(r101, both, tmp_path)
    with torch.no_grad():
        logits, mean, log_var = published_r101(image())
    output = student_output(r101, image())
    close(output.logits, logits)
    close(output.mean, mean)
    close(output.log_var, log_var)
    for ours, teachers in zip(
        r101.student.state_dict().values(), r101.teacher.state_dict().values()
    ):
        assert torch.equal(ours, teachers)


def test_encoder_of_openmmlab_loads_alone(r101, published_r101, tmp_path, caplog):
    state = published_r101.backbone.state_dict()
    state = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    state["fc.weight"] = torch.zeros(1000, 2048)
    before = r101.student.sem_seg_head.classifier[1].weight.clone()
    with caplog.at_level("INFO", "pppc"):
        load(r101, state, tmp_path, wrap=None)
    assert "1 tensors: the ImageNet classifier" in caplog.text
    assert "tensors: the file holds an encoder" in caplog.text
    assert torch.equal(r101.student.sem_seg_head.classifier[1].weight, before)
    with torch.no_grad():
        for ours, theirs in zip(r101.student.backbone.eval()(image()).values(),
                                published_r101.backbone(image()), strict=True):  # fmt: skip
            close(ours, theirs)


def test_an_encoder_alone_is_not_evaluated(r101, published_r101, tmp_path):
    torch.save(published_r101.backbone.state_dict(), tmp_path / "encoder.pth")
    with pytest.raises(ValueError, match=r"encoder\.pth holds an encoder alone"):
        StrictCheckpointer(r101, trained=True).load(str(tmp_path / "encoder.pth"))


def hugging_face(kind: type, folder) -> tuple[nn.Module, str]:
    """A random MiT-B0 and the file that the library makes of it."""
    model = randomize(kind(SegformerConfig(num_labels=19, decoder_hidden_size=256)))
    model.save_pretrained(folder)
    return model, str(folder / "model.safetensors")


def test_hugging_face_segmentation_model_gives_its_logits(segformer, tmp_path):
    theirs, path = hugging_face(SegformerForSemanticSegmentation, tmp_path)
    StrictCheckpointer(segformer).load(path)
    with torch.no_grad():
        close(student_output(segformer, image()).logits, theirs(image()).logits)


def test_hugging_face_encoder_gives_its_features(daformer, tmp_path):
    theirs, path = hugging_face(SegformerForImageClassification, tmp_path)
    StrictCheckpointer(daformer).load(path)
    with torch.no_grad():
        hidden = theirs.segformer(image(), output_hidden_states=True).hidden_states
        for ours, expected in zip(daformer.student.backbone.eval()(image()).values(), hidden):
            close(ours, expected)


MMSEG = ["MODEL.SEM_SEG_HEAD.NAME", "ConvSegFormerHead", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 256]


@pytest.fixture(scope="module")
def mmseg_segformer():
    return build_model(configuration("gta_to_cityscapes_pppc_mit_b5", *SEGFORMER, *MMSEG))


def test_mmsegmentation_s_segformer_gives_its_logits(mmseg_segformer, tmp_path):
    theirs = randomize(MMSegSegFormer())
    load(mmseg_segformer, theirs.state_dict(), tmp_path)
    with torch.no_grad():
        close(student_output(mmseg_segformer, image()).logits, theirs(image()))


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_mmsegmentation_s_encoder_gives_its_features(daformer, prefix, tmp_path):
    """By itself, as mit_b0_20220624-7e0fe6dd.pth, and beside a decoder that is not known here."""
    theirs = randomize(MMSegSegFormer()).backbone
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    if prefix:
        state["decode_head.psp_modules.0.conv.weight"] = torch.zeros(1)
    load(daformer, state, tmp_path)
    with torch.no_grad():
        for ours, expected in zip(
            daformer.student.backbone.eval()(image()).values(), theirs(image())
        ):
            close(ours, expected)


def test_the_error_of_another_decoder_says_which_one_the_file_has(
    mmseg_segformer, segformer, tmp_path
):
    theirs = MMSegSegFormer()
    with pytest.raises(InputError) as error:
        load(segformer, theirs.state_dict(), tmp_path)
    said = re.search(
        r"MODEL\.SEM_SEG_HEAD\.NAME (\w+), MODEL\.SEM_SEG_HEAD\.CONVS_DIM (\d+)", str(error.value)
    )
    assert [said[1], int(said[2])] == MMSEG[1::2]
    load(mmseg_segformer, theirs.state_dict(), tmp_path)  # which is configured as it says


@pytest.mark.parametrize(
    ("prefix", "kind"), [("head.", "daformer"), ("", "daformer"), ("", "segformer")]
)
def test_their_names_are_those_of_our_weights(prefix, kind, daformer, segformer, tmp_path):
    """DAFormer's, HRDA's and NVIDIA's; that the networks are the same tell the golden step and Hugging
    Face's."""
    model = daformer if kind == "daformer" else segformer
    randomize(model.student)
    expected = {name: tensor.clone() for name, tensor in model.student.state_dict().items()}
    state = {name.replace("decode_head.", f"decode_head.{prefix}"): tensor.clone()
             for name, tensor in theirs_of(model, kind).items()}  # fmt: skip
    assert "backbone.block3.1.mlp.dwconv.dwconv.bias" in state
    if kind == "daformer":
        state["decode_head.scale_attention.conv_seg.weight"] = torch.zeros(1)
        state = {f"model.{name}": tensor for name, tensor in state.items()}
        state["imnet_model.head.weight"] = torch.zeros(1)
    else:
        assert {
            "decode_head.linear_c4.proj.weight",
            "decode_head.linear_fuse.bn.weight",
        } <= state.keys()
        state["decode_head.conv_seg.weight"] = torch.zeros(19, 128, 1, 1)  # not in use
    for name, tensor in model.student.state_dict().items():
        if not name.startswith("probabilistic_head."):
            tensor.zero_()
    load(model, state, tmp_path)
    for name, tensor in model.student.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(tensor, expected[name]), name


def broken(state: dict, how: str) -> dict:
    state = dict(state)
    if how == "lacks":
        del state["decode_head.embed_layers.2.proj.bias"]
    elif how == "left over":
        state["decode_head.extra.weight"] = torch.zeros(1)
    elif how == "shape":
        state["decode_head.conv_seg.weight"] = torch.zeros(7, 256, 1, 1)
    elif how == "layout":
        return {"conv1.weight": torch.zeros(1)}
    elif how == "another network":
        del state["backbone.block1.0.attn.q.weight"]
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lacks", "it lacks .*stage3.bias .*decode_head.embed_layers.2.proj.bias"),
        ("left over", "nothing here takes its decode_head.extra.weight"),
        ("shape", r"classifier.1.weight has shape \(7, 256, 1, 1\)"),
        ("layout", "unknown layout .*conv1.weight"),
        ("another network", "recognized as DAFormer.*block1.0.attn.q.weight"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(daformer, tmp_path, how, message):
    state = broken(theirs_of(daformer, "daformer"), how)
    with pytest.raises(ValueError, match=message) as error:
        load(daformer, state, tmp_path)
    assert "weights.pth" in str(error.value)


def test_an_address_without_network_is_an_error_with_the_advice(segformer, monkeypatch):
    for proxy in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")

    def unreachable(*_):  # the real one tries again for half a minute
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    for address in ("detectron2://nowhere.pkl", "https://example.invalid/x.pth", "hf://no/model"):
        with pytest.raises(InputError, match=rf"{address} cannot be fetched .*MODEL.WEIGHTS"):
            StrictCheckpointer(segformer).load(address)
