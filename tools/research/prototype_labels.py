#!/usr/bin/env python3
"""Whether prototypes label target images better than the classifier does (docs/study.md).

    tools/research/prototype_labels.py output/study/camvid/recommended-1 [MORE RUNS]

Of trained runs: mIoU on the test set (DATASETS.TEST), in percent, at the positions of the class scores, of

    student              the classifier
    teacher              what labels target images, with PPPC.CLASS_BALANCE.PSEUDO_LABELS, where there is one
    prototypes           the student's embedding with the class prototypes, where the run has the contrast
    ImageNet prototypes  pppc.method.imagenet_prototypes, of the encoder that the run began with

and of the student's and the teacher's probabilities times those of the prototypes (as ProDA's, arXiv
2101.10979), at several temperatures of the latter: the best of them is known by these labels alone.
"""

import tempfile
from collections import defaultdict

import numpy as np
import pppc
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from pppc.arguments import ToolParser, whole_number
from pppc.data import label_reader
from pppc.data.catalog import dataset_records, with_intensities
from pppc.data.mapper import TestMapper
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.engine.imagenet_encoder import begin_imagenet_prototypes
from pppc.errors import InputError, run_tool
from pppc.evaluation.mean_iou import confusion_matrix, intersection_over_union
from pppc.method.labeled_pixels import resize_labels
from pppc.modeling.decode_heads import resize
from pppc.modeling.meta_arch import PPPCSegmentor
from tabulate import tabulate
from torch import Tensor
from variance_candidates import trained_loop

TEMPERATURES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def prototype_scores(segmentor: PPPCSegmentor, image: Tensor) -> Tensor:
    """The contrast's scores of an image's positions with the class prototypes, ``(1, C, h, w)``."""
    output, prototypes = segmentor.student(image, embedding=True), segmentor.prototypes
    mean, log_var = (values[0].flatten(1).T.float() for values in (output.mean, output.log_var))
    seen = prototypes.seen | ~prototypes.seen.any()
    logits = segmentor.contrast.class_logits(
        mean, log_var, prototypes.mean, prototypes.log_var, seen
    )
    return logits.T.view(1, -1, *output.mean.shape[-2:]) * segmentor.contrast.temperature


@torch.no_grad()
def ways_to_label(loop: AdaptationLoop, image: Tensor) -> dict[str, Tensor]:
    """Scores ``(1, C, h, w)`` of an image by each; of prototypes not yet over a temperature."""
    segmentor, of_encoder = loop.segmentor, loop.segmentor.imagenet_prototypes
    student = segmentor.student(image, embedding=False).logits
    ways = {
        "student": segmentor.balanced(student, segmentor.prediction_balance),
        "ImageNet prototypes": resize(of_encoder.scores(image) * of_encoder.temperature, student),
    }
    if segmentor.teacher is not None:
        teacher = segmentor.teacher(image, embedding=False).logits
        ways["teacher"] = segmentor.balanced(teacher, loop.pseudo_label_balance)
    if segmentor.prototypes is not None:
        ways["prototypes"] = resize(prototype_scores(segmentor, image), student)
    return ways


def loop_with_prototypes(run: str, batches: int) -> tuple[CfgNode, AdaptationLoop]:
    """A run's configuration, and its loop with the final model and prototypes of so many batches."""
    key = "PPPC.IMAGENET_PROTOTYPES"
    opts = [f"{key}.USE", "always", f"{key}.PREDICTION", True]
    cfg = pppc.load_config(f"{run}/config.yaml", opts)
    if not cfg.DATASETS.TEST:
        raise InputError(f"{run} has no test set (DATASETS.TEST)")
    prototypes = cfg.PPPC.IMAGENET_PROTOTYPES
    # A run that began with a trained model names the encoder's own weights.
    prototypes.WEIGHTS = prototypes.WEIGHTS or cfg.MODEL.WEIGHTS
    cfg.MODEL.WEIGHTS = f"{run}/model_final.pth"
    with tempfile.TemporaryDirectory() as folder, EventStorage() as storage:
        cfg.OUTPUT_DIR = folder
        loop = trained_loop(cfg, storage)
        begin_imagenet_prototypes(cfg, loop.segmentor)
    of_encoder, stream = loop.segmentor.imagenet_prototypes, iter(loop.data_loader)
    for _ in range(batches):
        source = next(stream)[0].to(loop.segmentor.device)
        of_encoder.update(source.image, source.label)
    return with_intensities(cfg, loop.segmentor), loop


def measure(run: str, batches: int) -> dict[str, float]:
    """mIoU of each way to label the test set."""
    cfg, loop = loop_with_prototypes(run, batches)
    num_classes, mapper = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, TestMapper(cfg)
    confusion: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((num_classes, num_classes)))

    def count(way: str, scores: Tensor, label: Tensor) -> None:
        predicted = scores.argmax(1)[0].byte().cpu().numpy()
        confusion[way] += confusion_matrix(predicted, label[0].byte().numpy(), num_classes)

    for name in cfg.DATASETS.TEST:
        reader = label_reader(cfg, name)
        for record in dataset_records(cfg, name):
            sample = mapper(record)
            ways = ways_to_label(loop, sample["image"][None].to(loop.segmentor.device).float())
            label = torch.from_numpy(reader.label_of(sample)).long()[None]
            label = resize_labels(label, ways["student"].shape[-2:])
            for way, scores in ways.items():
                count(way, scores, label)
            networks = ways.keys() & {"student", "teacher"}
            for who in sorted(networks):
                for what in sorted(ways.keys() - networks):
                    for temperature in TEMPERATURES:
                        scores = ways[who].float() + ways[what] / temperature
                        count(f"{who} x {what}, {temperature}", scores, label)
    return {
        way: 100 * float(np.mean(intersection_over_union(counts)[counts.sum(1) > 0]))
        for way, counts in confusion.items()
    }


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument(
        "--batches", type=whole_number(1), default=100, help="of the source, for the means"
    )
    args = parser.parse_args()
    found = [measure(run, args.batches) for run in args.runs]
    table = [
        [way, *(f"{of_run[way]:.1f}" if way in of_run else "" for of_run in found)]
        for way in dict.fromkeys(way for of_run in found for way in of_run)
    ]
    print(tabulate(table, ["labeled by", *args.runs], tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    run_tool(main)
