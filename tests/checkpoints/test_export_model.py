"""The exported model, run by another runtime on sizes it was not exported with."""

import json

import numpy as np
import onnxruntime
import pppc
import pytest
import torch
from conftest import REPOSITORY, run_tool
from detectron2.modeling import build_model
from pppc import load_config
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.cli import export as export_model
from pppc.own_code import import_own
from tiny_run import run_folder

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


def test_exported_model_predicts_what_the_model_does(model, tmp_path):
    model, weights = model
    path = tmp_path / "model.pt"
    run = export(path, weights)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "agrees with PyTorch" in run.stdout and list(tmp_path.iterdir()) == [path]
    image = torch.randint(256, (1, 3, 96, 320)).float()
    scores = torch.jit.load(str(path))(image).detach()
    expected = model([{"image": image[0]}])[0]["sem_seg"]
    torch.testing.assert_close(scores[0], expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    again = export(path, weights)
    assert again.returncode and "exists" in again.stderr.splitlines()[-1]


def test_the_evaluated_network_is_exported_with_its_class_weights(tmp_path):
    frequencies = [0.5, *[0.5 / 18] * 18]
    cfg = load_config(
        CONFIG, [*SMALL, "TEST.EVALUATE_TEACHER", True,
                 "PPPC.CLASS_WEIGHTS.TEST_SPREAD", 0.16, "PPPC.CLASS_WEIGHTS.FREQUENCIES", frequencies],
    )  # fmt: skip
    segmentor = build_model(cfg).eval()
    for network in (segmentor.student, segmentor.teacher):
        torch.nn.init.normal_(network.sem_seg_head.classifier[1].weight)
    with torch.no_grad():
        deployed = export_model.Deployed(segmentor).eval()
        written = export_model.write_torchscript(deployed, str(tmp_path / "model.pt"), {})
        assert export_model.largest_difference(deployed, written) < export_model.TOLERANCE
        image = 255 * torch.rand(1, 3, 64, 96)
        expected = segmentor([{"image": image[0]}])[0]["sem_seg"]
        torch.testing.assert_close(written(image)[0][0], expected, rtol=1e-4, atol=1e-4)
        # The tool's own check sees it where another network is written.
        segmentor.evaluate_teacher = False
        assert export_model.largest_difference(deployed, written) > 0.1


# In a process of its own, as the exporter to ONNX starts threads that forks do not survive. It takes a minute
# of mit_b0, so that one of a block in each stage stands for it.
SMALL_MIT = """
from pppc.modeling.timm_backbone import _mit
_mit("mit_test", (1, 1, 1, 1), (8, 16, 40, 64))
"""


@pytest.fixture(scope="module")
def small_mit(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "small_mit.py"
    path.write_text(SMALL_MIT)
    import_own([str(path)])
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".pt"])
@pytest.mark.parametrize(
    "encoder", ["mit_test", "dla46_c"]
)  # of a least side, and of whole strides
def test_encoders_are_exported_with_their_padding(small_mit, encoder, suffix, tmp_path):
    prototypes = "PPPC.IMAGENET_PROTOTYPES"
    opts = [*SMALL, "MODEL.TIMM.NAME", encoder, "MODEL.TIMM.DROP_PATH_RATE", 0.0,
            f"{prototypes}.USE", "always", f"{prototypes}.PREDICTION", True]  # fmt: skip
    segmentor = build_model(load_config(CONFIG, opts)).eval()
    torch.nn.init.normal_(segmentor.imagenet_prototypes.sums)
    torch.nn.init.normal_(segmentor.student.sem_seg_head.classifier[1].weight)
    StrictCheckpointer(segmentor, str(tmp_path)).save("weights")
    path = tmp_path / f"model{suffix}"
    run = run_tool(
        "export_model.py", "--import", small_mit, "--config-file", CONFIG, "--output", path,
        *opts, "MODEL.WEIGHTS", tmp_path / "weights.pth",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "agrees with PyTorch" in run.stdout  # of sides that are no multiples of 32
    # ONNX is not padded to the least side that an encoder takes.
    sides = (75, 150) if (encoder, suffix) == ("mit_test", ".onnx") else (5, 40)
    image = 255 * torch.rand(1, 3, *sides)
    if suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        scores = torch.from_numpy(session.run(["scores"], {"image": image.numpy()})[0])
    else:
        scores = torch.jit.load(str(path))(image).detach()
    expected = segmentor([{"image": image[0]}])[0]["sem_seg"]
    torch.testing.assert_close(scores[0], expected, rtol=1e-3, atol=1e-3)


def test_a_run_s_files_hold_the_uncertainty_and_say_what_they_are(tmp_path):
    run = run_folder(tmp_path / "run", "TEST.CALIBRATION", "source")
    content = torch.load(run / "model_final.pth")
    fitted = {"temperature": 1.5, "weight": [0.8, 0.1, 0.2, 0.0], "bias": -0.2}
    for name, value in fitted.items():
        content["model"][f"error_probability.{name}"] = torch.tensor(value)
    torch.save(content, run / "model_final.pth")
    (run / "metrics.json").write_text(
        '{"iteration": 3, "sem_seg/mIoU": 1.0}\n{"iteration": 6, "sem_seg/mIoU": 43.2}\n'
    )
    for name, said in (("folder", "predicts as the model does, 19 classes"),
                       ("model.onnx", "agrees with PyTorch"),
                       ("model.pt", "agrees with PyTorch")):  # fmt: skip
        source = run if name == "folder" else tmp_path / "folder"
        exported = run_tool("export_model.py", "--model", source, "--output", tmp_path / name)
        assert exported.returncode == 0 and said in exported.stdout, exported.stderr
    told = json.loads((tmp_path / "folder/config.json").read_text())
    assert told["scores"] == {"mIoU on cityscapes_val (%)": 43.2}
    assert told["uncertainty"] == "probability of error"
    del told["settings"]
    image = torch.randint(256, (2, 3, 90, 130)).float()
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    metadata = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(metadata[key]) for key in told} == told
    extra = {"config.json": ""}
    script = torch.jit.load(str(tmp_path / "model.pt"), _extra_files=extra)
    assert json.loads(extra["config.json"]) == told
    expected = pppc.load(run).model([{"image": one} for one in image])
    names = [output.name for output in session.get_outputs()]
    assert names == ["scores", "uncertainty"]
    with torch.no_grad():
        found = {
            "onnx": session.run(names, {"image": image.numpy()}),
            "torchscript": [output.numpy() for output in script(image)],
        }
    for scores, uncertainty in found.values():
        for row, output in enumerate(expected):
            for values, name in ((scores, "sem_seg"), (uncertainty, "error_probability")):
                np.testing.assert_allclose(values[row], output[name], rtol=1e-3, atol=1e-3)
