"""How target images would be labeled by prototypes."""

import pytest
import timm
import torch
from conftest import load_tool, run_tool
from tiny_run import run_folder


@pytest.mark.parametrize(
    ("key", "method"),
    [("MODEL.WEIGHTS", "pppc"), ("PPPC.IMAGENET_PROTOTYPES.WEIGHTS", "pppc"),
     ("MODEL.WEIGHTS", "source_only")],
)  # fmt: skip
def test_products_lie_between_what_they_are_of(key, method, tmp_path, datasets_root, monkeypatch):
    """Of a run that began with the encoder, or with a trained model and names the encoder."""
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "encoder.pth")
    run = run_folder(tmp_path / "run", key, str(tmp_path / "encoder.pth"), method=method)
    tool = load_tool("research/prototype_labels.py")
    monkeypatch.setattr(tool, "TEMPERATURES", (1e-9, 1e9))
    found = tool.measure(str(run), batches=2)
    assert 0 < found["ImageNet prototypes"] < 100
    networks, prototypes = ("student", "teacher"), ("ImageNet prototypes", "prototypes")
    if method == "source_only":  # it has neither a teacher nor a contrast
        networks, prototypes = networks[:1], prototypes[:1]
    assert found.keys() >= {*networks, *prototypes}
    assert ("teacher" in found) == (method != "source_only")
    for who in networks:
        for what in prototypes:
            assert found[f"{who} x {what}, 1e-09"] == pytest.approx(found[what], abs=0.1)
        assert found[f"{who} x ImageNet prototypes, 1000000000.0"] == found[who]


def test_a_run_without_a_test_set_is_refused(tmp_path, datasets_root):
    run = run_folder(tmp_path / "run", "DATASETS.TEST", ())
    refused = run_tool("research/prototype_labels.py", run)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == f"error: {run} has no test set (DATASETS.TEST)"
