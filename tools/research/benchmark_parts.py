#!/usr/bin/env python3
"""Time parts of what the project does beside the usual way of doing them, in alternation on one core.

    tools/research/benchmark_parts.py conversion   labels of 1914x1052 to train IDs, and class counts
    tools/research/benchmark_parts.py evaluation   class scores of 19x1024x2048 to mean IoU
    tools/research/benchmark_parts.py loading      PNGs of 2048x1024 to a training sample
    tools/research/benchmark_parts.py training       the contrast's score of 8192 pixels, and AdamW

Data are drawn for the purpose. Printed are medians, and how many times as fast as the first line of
its kind each line is.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pppc
import torch
from benchmarks.data import draw, drawn_data
from detectron2.data import DatasetCatalog
from PIL import Image
from pppc.arguments import ToolParser, whole_number
from pppc.data import label_reader
from pppc.data.conversion import LabelFile, convert_label, count_train_ids, to_train_ids
from pppc.data.images import read_image
from pppc.data.labels import LabelReader
from pppc.data.mapper import SourceMapper, TargetMapper
from pppc.data.train_ids import LABEL_SPACES
from pppc.errors import run_tool
from pppc.evaluation.class_map import class_map
from pppc.evaluation.mean_iou import confusion_matrix
from pppc.method.gaussian import mutual_likelihood_score
from tabulate import tabulate
from torch.nn.functional import interpolate, normalize

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

Ways = dict[str, Callable[[], object]]


def drawn_image(folder: Path, size: tuple[int, int]) -> tuple[Path, Path]:
    """One GTA-like image of ``size`` (width, height) and its label."""
    draw(folder / "data", "x".join(map(str, size)), 1, 0, 0, 0, 0, 0, 0)
    gta = folder / "data/gta"
    return min(gta.glob("images/*.png")), min(gta.glob("labels/*.png"))


def conversion(folder: Path) -> dict[str, Ways]:
    """A label's conversion, in memory and from file to file."""
    space = LABEL_SPACES["gta"]
    image, source = drawn_image(folder, (1914, 1052))
    raw = LabelReader("gta", train_ids=False)
    ids = np.asarray(Image.open(source))
    output = folder / "converted.png"

    def masks(ids: np.ndarray = ids) -> np.ndarray:
        train_ids, counts = np.full(ids.shape, space.ignore_label, np.uint8), {}
        for label_id, train_id in space.id_to_train_id.items():
            mask = ids == label_id
            train_ids[mask] = train_id
            if number := int(mask.sum()):
                counts[train_id] = number
        return train_ids

    def masks_and_files() -> None:
        Image.fromarray(masks(np.asarray(Image.open(source)))).save(output)

    def ours_and_files() -> None:
        output.unlink(missing_ok=True)  # a whole one would be kept
        convert_label(LabelFile(str(source), str(output), str(image)), raw.read, space)

    return {
        "in memory": {
            "a mask per class": masks,
            "here": lambda: count_train_ids(to_train_ids(str(source), ids, space), space),
        },
        "file to file": {"a mask per class": masks_and_files, "here": ours_and_files},
    }


def evaluation(folder: Path) -> dict[str, Ways]:
    """What is done with each image of a validation set but the network."""
    image, source = drawn_image(folder, (2048, 1024))
    train_ids = LabelReader("gta", train_ids=False).read(str(source))
    label_file = folder / "train_ids.png"
    Image.fromarray(train_ids).save(label_file)
    reader = LabelReader("gta", train_ids=True)
    logits = torch.randn(1, 19, 160, 320, generator=torch.Generator().manual_seed(0))

    def resize(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return interpolate(scores, size, mode="bilinear", align_corners=False)

    scores = resize(logits, (1024, 2048))[0]
    label = torch.from_numpy(train_ids).long()

    def plainly() -> torch.Tensor:
        prediction, counted = scores.argmax(0), label < 19
        return torch.bincount(19 * label[counted] + prediction[counted], minlength=19**2)

    def ours() -> np.ndarray:
        return confusion_matrix(class_map(scores, "scores"), train_ids, 19)

    return {
        "scores to confusion matrix": {"argmax and bincount": plainly, "here": ours},
        "scores to the image's size": {
            "two steps, as published": lambda: resize(resize(logits, (640, 1280)), (1024, 2048)),
            "here: one step": lambda: resize(logits, (1024, 2048)),
        },
        "decoding": {
            "image": lambda: read_image(str(image), "RGB"),
            "label, checked and mapped": lambda: reader.read(str(label_file)),
        },
    }


def loading(folder: Path) -> dict[str, Ways]:
    """A sample of each domain, with the sizes of experiment 1, from its files."""
    root = drawn_data(folder)
    os.environ["DETECTRON2_DATASETS"] = str(root)
    cfg = pppc.load_config(CONFIGS / "gta_to_cityscapes_pppc_mit_b5.yaml")
    source = DatasetCatalog.get("gta_train")[0]
    target = DatasetCatalog.get("cityscapes_train_unlabeled")[0]
    source_mapper = SourceMapper(cfg, label_reader(cfg, "gta_train"))
    target_mapper = TargetMapper(cfg)
    crop_height, crop_width = cfg.INPUT.CROP.SIZE
    rng = np.random.default_rng(0)

    def published_image(path: str, width: int) -> np.ndarray:
        """Decoding, resizing and flipping with OpenCV, as in the published pipeline."""
        image = cv2.imread(path)
        scale = width / image.shape[1]
        return cv2.flip(cv2.resize(image, None, fx=scale, fy=scale), 1)

    def published_tensor(image: np.ndarray) -> torch.Tensor:
        image = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2RGB)
        image = (image - np.float32(cfg.MODEL.PIXEL_MEAN)) / np.float32(cfg.MODEL.PIXEL_STD)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def published_source() -> tuple[torch.Tensor, torch.Tensor]:
        image = published_image(source["file_name"], cfg.INPUT.MAX_SIZE_TRAIN)
        label = np.asarray(Image.open(source["sem_seg_file_name"]))
        size = image.shape[1::-1]
        label = cv2.flip(cv2.resize(label, size, interpolation=cv2.INTER_NEAREST), 1)
        for _ in range(10):
            top = rng.integers(image.shape[0] - crop_height + 1)
            left = rng.integers(image.shape[1] - crop_width + 1)
            box = slice(top, top + crop_height), slice(left, left + crop_width)
            _, counts = np.unique(label[box], return_counts=True)
            if len(counts) > 1 and counts.max() < 0.75 * counts.sum():
                break
        return published_tensor(image[box]), torch.from_numpy(label[box].astype(np.int64))

    def published_target() -> torch.Tensor:
        return published_tensor(published_image(target["file_name"], cfg.INPUT.TARGET.MAX_SIZE))

    return {
        "source sample": {
            "the published steps": published_source,
            "here": lambda: source_mapper(source, None, 0),
        },
        "target sample": {
            "the published steps": published_target,
            "here": lambda: target_mapper(target, None, 0),
        },
    }


def measure(groups: dict[str, Ways], rounds: int) -> str:
    """Time all ways of all groups in turn; a table."""
    seconds = {(group, way): [] for group, ways in groups.items() for way in ways}
    for _ in range(rounds + 1):
        for (group, way), times in seconds.items():
            start = time.perf_counter()
            groups[group][way]()
            times.append(time.perf_counter() - start)
    rows = []
    for group, ways in groups.items():
        median = {way: statistics.median(seconds[group, way][1:]) for way in ways}  # 0 warms up
        first = next(iter(median.values()))
        rows += [[group, way, 1000 * value, first / value] for way, value in median.items()]
    headers = ["", "way", "ms", "times as fast"]
    return tabulate(rows, headers=headers, floatfmt=".1f", tablefmt="pipe")


def training(folder: Path) -> dict[str, Ways]:
    """Parts of a training step, with the published numbers of classes and dimensions."""
    generator = torch.Generator().manual_seed(0)
    classes, dim = 19, 512
    pixels = [torch.rand(8192, dim, generator=generator).requires_grad_() for _ in range(2)]
    prototypes = [torch.rand(classes, dim, generator=generator) for _ in range(2)]

    def published(mean_a, log_var_a, mean_b, log_var_b) -> torch.Tensor:
        total = log_var_a.exp()[:, None] + log_var_b.exp()
        difference = normalize(mean_a, dim=1)[:, None] - normalize(mean_b, dim=1)
        return -0.5 * (difference.square() / total + total.log()).mean(-1)

    def score(function: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: function(*pixels, *prototypes).square().sum().backward()

    def optimizer(**options: bool) -> Callable[[], object]:
        weights = [torch.rand(1024, 1024, requires_grad=True) for _ in range(40)]
        for weight in weights:
            weight.grad = torch.rand(1024, 1024)
        return torch.optim.AdamW(weights, **options).step

    return {
        "score, forward and backward": {
            "(pixels, classes, dimensions) tensors": score(published),
            "here": score(mutual_likelihood_score),
        },
        "AdamW, 42 million weights": {
            "a loop": optimizer(),
            "foreach": optimizer(foreach=True),
            "here: fused": optimizer(fused=True),
        },
    }


WAYS = {"conversion": conversion, "evaluation": evaluation, "loading": loading,
        "training": training}  # fmt: skip


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("what", choices=WAYS)
    parser.add_argument("--rounds", type=whole_number(1), default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(measure(WAYS[arguments.what](Path(folder)), arguments.rounds))


if __name__ == "__main__":
    run_tool(main)
