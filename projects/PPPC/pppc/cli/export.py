"""Write the adapted model as ONNX or TorchScript, for use without this project.

    %(prog)s --config-file RUN/config.yaml --output MODEL.onnx \
        MODEL.WEIGHTS RUN/model_final.pth [KEY VALUE ...]

What is written is the network that evaluation uses: the student, or with TEST.EVALUATE_TEACHER True
the teacher. A name in .onnx asks for ONNX, in .pt for TorchScript. The model takes "image"
(N, 3, H, W), float32 in [0, 255], channels as INPUT.FORMAT says (RGB), resized as for a test image,
and returns "scores" (N, C, H, W); their arg max are the train IDs, their softmax probabilities.
N, H and W are free. What was written is run on images of other sizes and must agree with the model's
own predictions. ONNX needs: pip install -e '.[export]'
"""

import argparse
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..arguments import ToolParser
from ..checkpoints.checkpointer import trained_model
from ..config import load_config
from ..errors import InputError
from ..files import atomic_write, new_file
from ..modeling.meta_arch import PPPCSegmentor

# Sizes that no dimension shares, so that one taken for fixed is found.
EXAMPLE, OTHERS = (2, 3, 160, 224), ((1, 3, 75, 150), (3, 3, 107, 131))
TOLERANCE = 1e-4  # of the largest score


class Deployed(nn.Module):
    """The evaluated network from images to scores of the same size."""

    def __init__(self, segmentor: PPPCSegmentor):
        super().__init__()
        self.segmentor = segmentor
        self.network = segmentor.teacher if segmentor.evaluate_teacher else segmentor.student

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(image, embedding=False).logits
        return self.segmentor.scores(logits, image.shape[-2:])


def write_torchscript(model: Deployed, path: str) -> Callable[[Tensor], Tensor]:
    """Trace the model; returns what was written, loaded again."""
    torch.jit.trace(model, torch.zeros(EXAMPLE), check_trace=False).save(path)
    return torch.jit.load(path)


def write_onnx(model: Deployed, path: str) -> Callable[[Tensor], Tensor]:
    """Export the model; returns what was written, in ONNX Runtime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (PyTorch's exporter needs it)
    except ImportError as error:
        raise InputError(f"ONNX needs {error.name}: pip install -e '.[export]'") from error
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        model, (torch.zeros(EXAMPLE),), path, input_names=["image"], output_names=["scores"],
        dynamic_shapes={"image": free}, dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


WRITERS = {".onnx": write_onnx, ".pt": write_torchscript}


def largest_difference(segmentor: PPPCSegmentor, written: Callable[[Tensor], Tensor]) -> float:
    """Of the scores of random images from what evaluation gets, relative to the largest score."""
    differences = []
    for shape in (EXAMPLE, *OTHERS):
        image = 255 * torch.rand(shape)
        predictions = segmentor([{"image": one} for one in image])
        expected = torch.stack([prediction["sem_seg"] for prediction in predictions])
        scores = written(image)
        differences.append(((scores - expected).abs().max() / expected.abs().max()).item())
    return max(differences)


@torch.no_grad()
def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, help="the file, .onnx or .pt")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    arguments = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    here = ["MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", False, "MODEL.RECOMPUTE", "none"]
    cfg = load_config(arguments.config_file, [*arguments.opts, *here])
    output = new_file(arguments.output, "--output", tuple(WRITERS))
    segmentor = trained_model(cfg)
    with atomic_write(output) as unfinished:
        written = WRITERS[output.suffix.lower()](Deployed(segmentor).eval(), str(unfinished))
        difference = largest_difference(segmentor, written)
        if not difference < TOLERANCE:
            raise RuntimeError(f"the written model differs from PyTorch's by {difference:.2g}")
    print(f"{output}: agrees with PyTorch, largest relative difference {difference:.1e}")
