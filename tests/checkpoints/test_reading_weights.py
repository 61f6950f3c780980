"""Files of weights of any origin: read right without running code of theirs, or one clear error."""

import io
import pathlib
import pickle
import re
import sys
import types
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from pppc.checkpoints import read_weights
from pppc.errors import InputError
from torch import nn
from torch.optim.swa_utils import AveragedModel


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


STATE = network().state_dict()


def assert_is_network(content: dict) -> None:
    model = content["model"]
    assert model.keys() == STATE.keys()
    assert all(torch.equal(model[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE},
        {"state_dict": STATE, "optimizer": {"state": {0: {"exp_avg_weight": torch.ones(2, 2)}}}},
        {"model_state_dict": STATE, "epoch": 3, "loss": 0.5},
        {"net": STATE, "acc": 93.1},
        {"module": STATE, "ds_version": "0.9"},
        {"ema": STATE},
        {"state_dict": STATE, "state_dict_ema": {k: v + 1 for k, v in STATE.items()}},
        {"model": {"state_dict": STATE, "step": 7}},
        {"anything": {"deeper": STATE}},
        {"model": {f"module.{k}": v for k, v in STATE.items()}},
        {"model": {f"_orig_mod.{k}": v for k, v in STATE.items()}},
        {"model": {f"_orig_mod.module.{k}": v for k, v in STATE.items()}},
        {"model": {f"module.{k.replace('.', '._orig_mod.')}": v for k, v in STATE.items()}},
        AveragedModel(network()).state_dict(),
        STATE | {"epoch": 3, "name": "resnet"},
    ],
)
def test_the_network_is_found_wherever_it_lies(content, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    assert_is_network(read_weights(str(tmp_path / "file.pth")))


def test_parts_that_lie_beside_each_other_are_one_network(tmp_path):
    torch.save({"encoder": STATE, "decoder": STATE, "epoch": 2}, tmp_path / "file.pth")
    content = read_weights(str(tmp_path / "file.pth"))
    assert content["model"].keys() == {f"{p}.{k}" for p in ("encoder", "decoder") for k in STATE}
    assert content["epoch"] == 2


def test_which_of_several_networks_is_taken_is_in_the_log(tmp_path, caplog):
    other = {key: value + 1 for key, value in STATE.items()}
    torch.save({"state_dict_ema": other, "state_dict": STATE}, tmp_path / "file.pth")
    assert_is_network(read_weights(str(tmp_path / "file.pth")))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    number = len(STATE)
    assert (
        f"file.pth: state_dict is taken, state_dict_ema ({number} tensors) left out" in caplog.text
    )


@pytest.mark.parametrize("name", ["file.pth", "file.bin", "file.safetensors", "file"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "arrays"])
def test_the_content_tells_what_a_file_is_not_its_name(kind, name, tmp_path):
    path = str(tmp_path / name)
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    elif kind == "arrays":
        arrays = {key: value.numpy() for key, value in STATE.items()}
        pathlib.Path(path).write_bytes(pickle.dumps({"model": arrays}))
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    assert_is_network(read_weights(path))


def saved(content: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def changed(content: bytes) -> bytes:
    """One byte of the weights flipped."""
    place = content.index(STATE["0.weight"].numpy().tobytes()) + 5
    return content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]


def archive(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 3, 8, 8)), file)
    return file.getvalue()


WHOLE, TENSORS = saved(STATE), safetensors.torch.save(STATE)
LEGACY = saved(STATE, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no whole checkpoint .it is empty"),
        (bytes(4096), "no whole checkpoint .it is empty"),  # of a download that only took its place
        (WHOLE[:700], "no whole checkpoint"),
        (WHOLE[: len(WHOLE) - 30], "no whole checkpoint"),
        (changed(WHOLE), "no whole checkpoint .its part archive/data/. has changed"),
        (LEGACY[: len(LEGACY) - 30], "no whole checkpoint"),
        (LEGACY[:100], "no whole checkpoint"),
        (TENSORS[: len(TENSORS) - 30], "no whole checkpoint"),
        (TENSORS[:20], "no whole checkpoint"),
        (b"\n<!DOCTYPE html>\n<html>", "no whole checkpoint .it holds text: '<!DOCTYPE html>"),
        (b"Access denied", "no whole checkpoint .it holds text: 'Access denied'"),
        (b'{"metadata": {}, "weight_map": {}}', "no whole checkpoint .it holds text: '{"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "run git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(20), "a compressed file.*unpack it"),
        (archive(**{"weights.pth": WHOLE}), "an archive of weights.pth.*unpack it"),
        (archive(**{"conv.weight.npy": b"x"}), "an archive of conv.weight.npy"),
        (saved({"epoch": 3}), "holds no state dictionary"),
        (saved([1, 2]), "holds no state dictionary"),
        (saved(torch.ones(3)), "holds no state dictionary"),
        (saved({"optimizer": {"weight": torch.ones(2, 2)}}), "holds no state dictionary"),
        (script(), "is a TorchScript program"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "no whole checkpoint"),
    ],
)
def test_a_damaged_or_other_file_is_one_line_that_names_it(content, said, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_weights(str(path))
    assert str(error.value).startswith(str(path))


def test_weights_of_a_torchscript_program_are_saved_as_the_message_says(tmp_path, monkeypatch):
    path = tmp_path / "script.pt"
    path.write_bytes(script())
    with pytest.raises(InputError) as error:
        read_weights(str(path))
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"torch\.save\(.*\)", str(error.value))[0], {"torch": torch})
    assert_is_network(read_weights("NEW.pth"))


class Foreign:
    """Of a package that is not installed where the file is read."""

    def __init__(self, **attributes: object):
        self.__dict__.update(attributes)


class ForeignDict(dict):
    pass


class ForeignNetwork(nn.Sequential):
    pass


@pytest.fixture
def foreign_package():
    """The classes above in a package that can be taken away again."""
    module = types.ModuleType("foreign_logging")
    for kind in (Foreign, ForeignDict, ForeignNetwork):
        kind.__module__ = module.__name__
        setattr(module, kind.__name__, kind)
    sys.modules[module.__name__] = module
    yield lambda: sys.modules.pop(module.__name__, None)
    sys.modules.pop(module.__name__, None)


def extras() -> dict[str, dict]:
    """What checkpoints hold beside weights."""
    return {
        "mmengine": {
            "meta": {"dataset_meta": {"classes": ("road", "sky")}, "time": Foreign(x=1)},
            "message_hub": {"log_scalars": {"loss": Foreign(history=np.arange(3.0))}},
            "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        },
        "numpy": {
            "best": np.float64(0.5),
            "rng": np.random.get_state(),
            "g": np.random.default_rng(0),
        },
        "windows path": {"path": pathlib.PureWindowsPath("C:/run"), "posix": pathlib.Path("/run")},
        "device": {"device": torch.device("cuda:1"), "dtype": torch.float16},
        "nested": {
            "hyper_parameters": ForeignDict(a=ForeignDict(b=Foreign())),
            "set": {Foreign: 1},
        },
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["mmengine", "numpy", "windows path", "device", "nested"])
def test_tensors_are_taken_without_the_foreign_package(
    kind, legacy, foreign_package, tmp_path, caplog
):
    path = tmp_path / "iter_160000.pth"
    content = {"state_dict": STATE, **extras()[kind]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    foreign_package()
    read = read_weights(str(path))
    assert_is_network(read)
    if kind == "mmengine":
        assert read["meta"]["dataset_meta"]["classes"] == ("road", "sky")
        assert "more than tensors (foreign_logging.Foreign). That is left out" in caplog.text


@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: {"model": m}, lambda m: ForeignDict(model=m)]
)
def test_the_tensors_of_a_network_that_was_saved_whole(wrap, foreign_package, tmp_path):
    torch.manual_seed(0)
    whole = ForeignNetwork(*network())
    whole.register_buffer("scale_weight", torch.ones(3), persistent=False)
    torch.save(wrap(whole), tmp_path / "best_model.pth")
    foreign_package()
    assert_is_network(read_weights(str(tmp_path / "best_model.pth")))


def test_a_plain_pickle_of_tensors(tmp_path):
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(STATE))
    assert_is_network(read_weights(str(tmp_path / "weights.pkl")))


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["evil.pkl", "evil.pth"])
def test_code_in_a_file_is_never_run(name, tmp_path, caplog):
    content = {"model": {"weight": np.zeros(2), "code": Evil(tmp_path / "run")}}
    if name.endswith("pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name)
    assert list(read_weights(str(tmp_path / name))["model"]) == ["weight"]
    assert not (tmp_path / "run").exists()
    assert f"{name} holds more than tensors" in caplog.text


def test_half_precision_is_kept_for_the_model_to_convert(tmp_path):
    torch.save({k: v.bfloat16() for k, v in STATE.items()}, tmp_path / "half.pth")
    model = network()
    model.load_state_dict(read_weights(str(tmp_path / "half.pth"))["model"])
    assert model[0].weight.dtype == torch.float32
    torch.testing.assert_close(model[0].weight, STATE["0.weight"], rtol=1e-2, atol=1e-2)
