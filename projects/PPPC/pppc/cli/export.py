"""Write a trained model as a folder that describes itself, as ONNX or as TorchScript.

    %(prog)s --model RUN --output MODEL_FOLDER [KEY VALUE ...]
    %(prog)s --model RUN --output MODEL.onnx [KEY VALUE ...]
    %(prog)s --config-file FILE.yaml --output MODEL.pt MODEL.WEIGHTS FILE.pth [KEY VALUE ...]

RUN is a run's folder, one of its checkpoints, or a model folder; --config-file is for weights that do not
say how they were trained. What is written is the network that evaluation uses: the student, or with
TEST.EVALUATE_TEACHER True the teacher. TEST.CALIBRATION source, or vote, calibrates it first, if it is not
yet. A name without an ending asks for a model folder, which pppc.load and the other tools take; .onnx and .pt
(TorchScript) are for use without this project.

These take "image" (N, 3, H, W), float32 in [0, 255], channels as INPUT.FORMAT says (RGB), resized as for a
test image, and return "scores" (N, C, H, W), whose arg max are the train IDs, and their softmax
probabilities; also "uncertainty" (N, H, W): of a calibrated model the probability of error, else of one that
was trained with the contrast from 0 to the logarithm of C, which config.json tells. N, H and W are free. The
file holds what config.json of a model folder does (class names, colors, sizes, normalization): ONNX as
metadata, TorchScript as its extra file config.json.

What was written is loaded and must agree with the model's own predictions. ONNX needs:
pip install -e '.[export]'
"""

import argparse
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import ToolParser
from ..config import load_config
from ..engine.calibration import calibrate_trained
from ..errors import InputError
from ..files import atomic_write, new_file
from ..model_folder import describe, new_folder, recorded_scores, save_model_folder
from ..modeling.meta_arch import PPPCSegmentor
from ..prediction import Predictor, load

# Sizes that no dimension shares, so that one taken for fixed is found.
EXAMPLE, OTHERS = (2, 3, 160, 224), ((1, 3, 75, 150), (3, 3, 107, 131))
TOLERANCE = 1e-4  # of the largest number
HERE = ("MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", False, "MODEL.RECOMPUTE", "none")

Written = Callable[[Tensor], list[Tensor]]  # the outputs for images


class Deployed(nn.Module):
    """The evaluated network from images to scores, and uncertainties, of the same size."""

    def __init__(self, segmentor: PPPCSegmentor):
        super().__init__()
        self.segmentor = segmentor

    @property
    def outputs(self) -> dict[str, str]:
        """The names of :meth:`PPPCSegmentor.predictions`, by those of the written model."""
        names = {"scores": "sem_seg"}
        if self.segmentor.gives_error_probability:
            names["uncertainty"] = "error_probability"
        elif self.segmentor.gives_embedding:
            names["uncertainty"] = "uncertainty"
        return names

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        segmentor = self.segmentor
        output = segmentor.predicting_output(image, embedding=segmentor.gives_embedding)
        found = segmentor.predictions(output, image.shape[-2:])
        outputs = tuple(found[name] for name in self.outputs.values())
        return outputs if len(outputs) > 1 else outputs[0]


def write_torchscript(model: Deployed, path: str, told: dict) -> Written:
    """Trace the model; returns what was written, loaded again."""
    traced = torch.jit.trace(model, torch.zeros(EXAMPLE), check_trace=False)
    torch.jit.save(traced, path, _extra_files={"config.json": json.dumps(told)})
    written = torch.jit.load(path)
    return lambda image: list(written(image)) if len(model.outputs) > 1 else [written(image)]


def write_onnx(model: Deployed, path: str, told: dict) -> Written:
    """Export the model; returns what was written, in ONNX Runtime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (PyTorch's exporter needs it)
    except ImportError as error:
        raise InputError(f"ONNX needs {error.name}: pip install -e '.[export]'") from error
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(
        model, (torch.zeros(EXAMPLE),), input_names=["image"], output_names=list(model.outputs),
        dynamic_shapes={"image": free}, dynamo=True, verbose=False,
    )  # fmt: skip
    program.model.metadata_props.update({key: json.dumps(told[key]) for key in told})
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: [
        torch.from_numpy(output) for output in session.run(None, {"image": image.numpy()})
    ]


WRITERS = {".onnx": write_onnx, ".pt": write_torchscript}


def largest_difference(model: Deployed, written: Written) -> float:
    """Of the outputs for random images from what evaluation gets, relative to an output's largest number."""
    differences = []
    for shape in (EXAMPLE, *OTHERS):
        image = 255 * torch.rand(shape)
        predictions = model.segmentor([{"image": one} for one in image])
        for name, output in zip(model.outputs.values(), written(image), strict=True):
            expected = torch.stack([prediction[name] for prediction in predictions])
            largest = (output - expected).abs().max() / expected.abs().max()
            differences.append(largest.item())
    return max(differences)


def write_file(model: Predictor, output: Path) -> str:
    """Write ONNX or TorchScript; returns a line on how well it agrees."""
    deployed = Deployed(model.model).eval()
    with atomic_write(output) as unfinished:
        written = WRITERS[output.suffix.lower()](deployed, str(unfinished), describe(model))
        difference = largest_difference(deployed, written)
        if not difference < TOLERANCE:
            raise RuntimeError(f"the written model differs from PyTorch's by {difference:.2g}")
    return f"{output}: agrees with PyTorch, largest relative difference {difference:.1e}"


def write_folder(model: Predictor, output: Path) -> str:
    """Write a model folder; returns a line on what it holds."""
    save_model_folder(model, output, recorded_scores(model))
    pixels = np.random.default_rng(0).integers(0, 256, (107, 131, 3), np.uint8)
    expected, read = model.predict(pixels), load(output, HERE).predict(pixels)
    if not np.array_equal(read.confidence, expected.confidence):
        raise RuntimeError(f"{output} predicts otherwise than the model it was written from")
    return f"{output}: predicts as the model does, {len(model.names)} classes"


@torch.no_grad()
def main() -> None:
    parser = ToolParser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="a run's folder, a checkpoint, or a model folder")
    which.add_argument("--config-file", help="of the weights that MODEL.WEIGHTS names")
    parser.add_argument("--output", required=True, help="a folder, or a file in .onnx or .pt")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    opts = [*arguments.opts, *HERE]
    if is_file := bool(Path(arguments.output).suffix) and not os.path.isdir(arguments.output):
        output = new_file(arguments.output, "--output", tuple(WRITERS))
    else:
        output = new_folder(arguments.output)
    if arguments.model:
        model = load(arguments.model, opts)
    else:
        model = Predictor(load_config(arguments.config_file, opts))
    calibrate_trained(model.cfg, model.model)
    print(write_file(model, output) if is_file else write_folder(model, output))
