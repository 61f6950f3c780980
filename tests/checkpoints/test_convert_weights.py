"""The tool that converts weights, run in this process."""

import sys
import types

import pytest
import timm
import torch
from conftest import REPOSITORY, load_tool
from detectron2.modeling import build_model
from pppc import load_config
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import InputError
from published_networks import MMSegSegFormer

CONFIG = str(REPOSITORY / "configs/gta_to_cityscapes_dacs_mit_b5.yaml")
MMSEG = ["MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.NAME", "ConvSegFormerHead"]


def convert(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["convert_weights.py", *map(str, arguments)])
    load_tool("convert_weights.py").main()


def test_the_advice_for_a_file_that_holds_more_than_tensors_works(tmp_path, monkeypatch, capsys):
    """A file of mmsegmentation 1.x, without mmengine."""
    module = types.ModuleType("mmengine_history")
    module.HistoryBuffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    theirs, path = MMSegSegFormer(), tmp_path / "iter_160000.pth"
    names = tuple(f"class {i}" for i in range(19))
    content = {"meta": {"dataset_meta": {"classes": names}}, "state_dict": theirs.state_dict(),
               "message_hub": {"loss": module.HistoryBuffer()}}  # fmt: skip
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, module.__name__)
    model = build_model(load_config(CONFIG, ["MODEL.DEVICE", "cpu", *MMSEG]))
    with pytest.raises(InputError) as error:
        StrictCheckpointer(model).load(str(path))
    assert "mmengine_history.HistoryBuffer" in str(error.value)
    advice = str(error.value).split("tools/convert_weights.py ")[1].split(";")[0]
    values = {"IN": path, "OUT.pth": tmp_path / "new.pth", "FILE.yaml": CONFIG}
    convert(monkeypatch, *(values.get(word, word) for word in advice.split()), *MMSEG)
    assert "Recognized as mmsegmentation's SegFormer" in capsys.readouterr().out
    StrictCheckpointer(model).load(str(tmp_path / "new.pth"))
    ours = model.student.sem_seg_head.classifier[1].weight
    assert torch.equal(ours, theirs.decode_head.conv_seg.weight)
    assert torch.load(tmp_path / "new.pth", weights_only=True)["class_names"] == list(names)


def test_an_encoder_of_timm_is_converted(tmp_path, monkeypatch):
    whole = timm.create_model("resnet18")
    torch.save(whole.state_dict(), tmp_path / "in.pth")
    convert(monkeypatch, tmp_path / "in.pth", tmp_path / "out.pth", "--config-file", CONFIG,
            "MODEL.TIMM.NAME", "resnet18")  # fmt: skip
    opts = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "resnet18"]
    model = build_model(load_config(CONFIG, opts))
    StrictCheckpointer(model).load(str(tmp_path / "out.pth"))
    assert torch.equal(model.student.backbone.model.conv1.weight, whole.conv1.weight)
    with pytest.raises(InputError, match="out.pth holds an encoder alone"):
        StrictCheckpointer(model, trained=True).load(str(tmp_path / "out.pth"))


def test_the_advice_for_another_number_of_classes_works(tmp_path, monkeypatch):
    torch.save(MMSegSegFormer(classes=3).state_dict(), tmp_path / "in.pth")
    command = [tmp_path / "in.pth", tmp_path / "out.pth", "--config-file", CONFIG, *MMSEG]
    with pytest.raises(InputError, match="network that the weights are of: ") as error:
        convert(monkeypatch, *command)
    convert(monkeypatch, *command, *str(error.value).rsplit(": ", 1)[1].split())
    assert (tmp_path / "out.pth").is_file()


def test_no_file_is_written_over_and_none_left_after_an_error(tmp_path, monkeypatch):
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "in.pth")
    for output, said in (("in.pth", "in.pth exists"), ("no/out.pth", "is no folder"),
                         ("out.pth", "unknown layout")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            convert(monkeypatch, tmp_path / "in.pth", tmp_path / output, "--config-file", CONFIG,
                    *MMSEG)  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]
