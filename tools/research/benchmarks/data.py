"""Loading batches for training, and evaluating a model; drawn images of Cityscapes' size."""

import subprocess
import sys
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pppc.data import build_test_loader, build_train_loader, label_reader
from pppc.evaluation import MeanIoUEvaluator

from .timing import Stages

__all__ = ["Evaluation", "Loading", "draw", "drawn_data"]

TOOLS = Path(__file__).resolve().parents[2]
SPLITS = ("gta-train", "synthia-train", "cityscapes-train", "cityscapes-val", "dark-zurich-train",
          "dark-zurich-val", "dark-zurich-test")  # fmt: skip


def draw(root: Path, size: str, *numbers: int) -> None:
    """Draw demo data.

    Args:
        root: a new folder.
        size: WIDTHxHEIGHT of all images.
        numbers: of the images of each of SPLITS.
    """
    command = [sys.executable, TOOLS / "make_demo_data.py", root, "--size", size, "--nproc", "1"]
    for split, number in zip(SPLITS, numbers):
        command += [f"--{split}", str(number)]
    subprocess.run(command, check=True, capture_output=True)


def drawn_data(folder: Path) -> Path:
    """Draw a few images of each data set of the experiments and convert their labels.

    Args:
        folder: in which to make the data, unless they are there.

    Returns:
        the root of the data sets.
    """
    root = folder / "datasets"
    draw(root, "2048x1024", 2, 2, 2, 1, 1, 1, 1)
    for name in ("gta", "synthia", "cityscapes"):
        tool = TOOLS / "convert_datasets" / f"{name}.py"
        subprocess.run(
            [sys.executable, tool, root / name, "--nproc", "1"], check=True, capture_output=True
        )
    return root


class Loading:
    """The loader of source and target batches, as a training waits for it."""

    def __init__(self, cfg: CfgNode):
        self.stages = Stages(torch.device("cpu"))
        self.batches = iter(build_train_loader(cfg, seed=0))
        self.images = cfg.SOLVER.IMS_PER_BATCH
        if cfg.PPPC.SELF_TRAINING.ENABLED:
            self.images += cfg.SOLVER.TARGET_IMS_PER_BATCH

    def run(self) -> dict[str, float]:
        """One pair of batches."""
        start = self.stages.now()
        next(self.batches)
        seconds = self.stages.now() - start
        return {"seconds": seconds, "images per second": self.images / seconds}


class Evaluation:
    """An image of a validation set from its file to the confusion matrix, with random weights."""

    def __init__(self, cfg: CfgNode):
        self.model = build_model(cfg).eval()
        name = cfg.DATASETS.TEST[0]
        self.loader = build_test_loader(cfg, name)
        self.batches = iter(self.loader)
        self.evaluator = MeanIoUEvaluator(label_reader(cfg, name))
        self.stages = Stages(self.model.device)
        self.stages.watch(self.model, "inference", "network and scores at the image's size")
        self.stages.watch(self.evaluator, "process", "class map, label, confusion matrix")

    def run(self) -> dict[str, float]:
        """One image."""
        start = self.stages.now()
        inputs = next(self.batches, None)
        if inputs is None:  # an epoch is over
            self.batches = iter(self.loader)
            inputs = next(self.batches)
        loaded = self.stages.now()
        self.evaluator.process(inputs, self.model(inputs))
        seconds = self.stages.now() - start
        return {"waiting for the image": loaded - start, **self.stages.take(), "seconds": seconds}
