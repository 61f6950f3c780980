"""The exported model, run by another runtime on sizes it was not exported with."""

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY, run_tool
from detectron2.modeling import build_model

from pppc import load_config
from pppc.checkpoint import StrictCheckpointer

CONFIG = str(REPOSITORY / "configs/cityscapes_to_dark_zurich_pppc_mit_b5.yaml")
SMALL = ["MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16",
         "MODEL.PROBABILISTIC_HEAD.DIM", "8", "MODEL.DEVICE", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with random weights, and its checkpoint."""
    cfg = load_config(CONFIG, SMALL)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.nn.init.normal_(model.student.sem_seg_head.classifier[1].weight)
    folder = tmp_path_factory.mktemp("model")
    StrictCheckpointer(model, str(folder)).save("weights")
    return model, folder / "weights.pth"


def export(output, weights):
    return run_tool("export_model.py", "--config-file", CONFIG, "--output", output,
                    *SMALL, "MODEL.WEIGHTS", weights)  # fmt: skip


@pytest.mark.parametrize("suffix", ["onnx", "pt"])
def test_exported_model_predicts_what_the_model_does(model, tmp_path, suffix):
    model, weights = model
    path = tmp_path / f"model.{suffix}"
    run = export(path, weights)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "agrees with PyTorch" in run.stdout and list(tmp_path.iterdir()) == [path]
    image = torch.randint(256, (1, 3, 96, 320)).float()
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        scores = session.run(["scores"], {"image": image.numpy()})[0]
    else:
        scores = torch.jit.load(str(path))(image).detach().numpy()
    expected = model([{"image": image[0]}])[0]["sem_seg"].numpy()
    np.testing.assert_allclose(scores[0], expected, atol=1e-4 * np.abs(expected).max())
    again = export(path, weights)
    assert again.returncode and "exists" in again.stderr.splitlines()[-1]


def test_another_format_is_an_error(model, tmp_path):
    run = export(tmp_path / "model.engine", model[1])
    assert run.returncode and ".onnx, .pt" in run.stderr.splitlines()[-1]
