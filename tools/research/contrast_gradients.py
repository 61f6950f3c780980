#!/usr/bin/env python3
"""How much the contrast moves the backbone beside cross-entropy, at several temperatures.

    tools/research/contrast_gradients.py --config-file configs/FILE.yaml [--temperatures 100 1 0.1] \
        [KEY VALUE ...]

Reads batches of the configuration's data, updates the prototypes with each, trains nothing, and
prints means over the batches after the first half. MODEL.WEIGHTS FILE.pth measures a trained model.

    norm of the gradient at the backbone, of the source images' losses, as trained (LOSS_WEIGHT
    included), the contrast's also as a ratio to cross-entropy's
    margin   score of a pixel with its own prototype, above that with the best other one
    bias     standard deviation over the prototypes of -1/2 mean_d log(v + w): the part of the score
             that does not depend on the means, so that it prefers classes, not pixels
"""

import argparse
import tempfile

import pppc
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from pppc.arguments import ToolParser, number_above_0, whole_number
from pppc.engine import Trainer
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.errors import InputError, run_tool
from pppc.method.gaussian import SCORES, mutual_likelihood_score
from pppc.method.labeled_pixels import LabeledPixels, labeled_pixels
from pppc.method.teacher import update_teacher
from pppc.pixel_batch import PixelBatch
from tabulate import tabulate
from torch import Tensor


def gradient_norm(loop: AdaptationLoop, loss: Tensor) -> float:
    """Norm of the gradient of ``loss`` at the student's backbone."""
    parameters = [p for p in loop.segmentor.student.backbone.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.stack([g.norm() for g in gradients if g is not None]).norm().item()


@torch.no_grad()
def margin_and_bias(loop: AdaptationLoop, batch: PixelBatch) -> tuple[float, float]:
    """See the top of the file; of the teacher, which equals the student here."""
    segmentor = loop.segmentor
    prototypes = segmentor.prototypes
    output = segmentor.teacher(batch.image, logits=False, embedding=True)
    pixels = labeled_pixels(
        output.mean, output.log_var, batch.label, prototypes.seen, segmentor.ignore_label
    )
    labeled = pixels.label < len(prototypes.seen)
    pixels = LabeledPixels(*(of_pixels[labeled] for of_pixels in pixels))
    scores = SCORES[segmentor.contrast.score](
        pixels.mean, pixels.log_var, prototypes.mean, prototypes.log_var
    ).masked_fill(~prototypes.seen, -torch.inf)
    own = scores.gather(1, pixels.label[:, None])[:, 0]
    other = scores.scatter(1, pixels.label[:, None], -torch.inf).amax(dim=1)
    # Of equal means the score is its logarithmic part alone.
    same = torch.ones_like(pixels.mean[:1])
    bias = mutual_likelihood_score(
        same.expand_as(pixels.mean),
        pixels.log_var,
        same.expand_as(prototypes.mean),
        prototypes.log_var,
    )[:, prototypes.seen]
    return (own - other).mean().item(), bias.std(dim=1).mean().item()


def measure(
    loop: AdaptationLoop, temperatures: list[float], batches: int, loss_weight: float
) -> list[list[float]]:
    """A row per temperature: temperature, loss, gradient norms, margin, bias."""
    segmentor = loop.segmentor.train()
    stream = iter(loop.data_loader)
    rows = {temperature: [] for temperature in temperatures}
    update_teacher(segmentor.teacher, segmentor.student, momentum=0.0)
    for index in range(batches):
        source, target = next(stream)
        source, target = source.to(segmentor.device), target.to(segmentor.device)
        loop.iter = index
        loop.before_step()
        target = loop.label_target(loop.crop_target(target))
        confident = target.confident(loop.contrast_threshold, segmentor.ignore_label)
        loop.prototype_update(source, confident)
        if index < batches // 2:
            continue
        margin, bias = margin_and_bias(loop, source)
        for temperature in temperatures:
            segmentor.contrast.temperature = temperature
            losses = segmentor(source, contrast_scale=loss_weight)
            norms = [
                gradient_norm(loop, losses[f"loss_{name}"])
                for name in ("segmentation", "contrast", "kl")
            ]
            value = losses["loss_contrast"].item()
            rows[temperature].append([value, *norms, norms[1] / norms[0], margin, bias])
    return [
        [temperature, *torch.tensor(values).mean(dim=0).tolist()]
        for temperature, values in rows.items()
    ]


def read_settings(config_file: str, opts: list[str]) -> CfgNode:
    """The configuration, with nothing computed again: one graph is gone through several times."""
    cfg = pppc.load_config(config_file, [*opts, "MODEL.RECOMPUTE", "none"])
    if not cfg.PPPC.CONTRAST.ENABLED:
        raise InputError(
            f"{config_file}: PPPC.CONTRAST.ENABLED is False, there is no contrast to measure. Give a "
            "configuration with it"
        )
    return cfg


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--temperatures", type=number_above_0, nargs="+",
                        default=[100, 1, 0.1, 0.01, 0.001])  # fmt: skip
    parser.add_argument("--batches", type=whole_number(1), default=40)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    cfg = read_settings(args.config_file, args.opts)
    with tempfile.TemporaryDirectory() as folder:
        cfg.OUTPUT_DIR = folder
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        loop = trainer._trainer
        loop.register_hooks(loop.hooks())
        with EventStorage() as loop.storage:
            rows = measure(loop, args.temperatures, args.batches, cfg.PPPC.CONTRAST.LOSS_WEIGHT)
    headers = ["temperature", "contrast loss", "gradient of cross-entropy", "of contrast", "of KL",
               "contrast / cross-entropy", "margin", "bias"]  # fmt: skip
    print(tabulate(rows, headers=headers, floatfmt=".3g", tablefmt="pipe"))


if __name__ == "__main__":
    run_tool(main)
