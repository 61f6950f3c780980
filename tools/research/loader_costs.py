#!/usr/bin/env python3
"""What a training's samples cost beside the published steps, and what its start costs with many labels.

    tools/research/loader_costs.py samples FOLDER [--rounds 15]
    tools/research/loader_costs.py start FOLDER [--images 24966]

"samples" draws an image of GTA V's size with its label and one of Cityscapes' size, with as much detail
as theirs (bytes of a PNG), and times in alternation a sample of each by the published steps
(mmsegmentation's, with the sizes of the paper's first experiment), by this project's, and by it from
DATALOADER.CACHE; the least of all rounds counts, to which other work on the machine adds least. "start"
writes that many images and labels of a few pixels as GTA V's, unless they are there, and times the checks
and counts before a training's first step: run it twice for a first start and a second.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pppc
import torch
from detectron2.config import CfgNode
from PIL import Image
from pppc.arguments import ToolParser, whole_number
from pppc.data import build_train_loader, check_data
from pppc.data.catalog import own_reader
from pppc.data.label_images import PNG_OPTIONS
from pppc.data.mapper import SourceMapper, TargetMapper
from pppc.data.stamps import source_hash, stamped
from pppc.data.train_ids import LABEL_SPACES
from pppc.errors import run_tool
from tabulate import tabulate

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def draw(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of shapes with some noise, and the train IDs of its shapes."""
    rng = np.random.default_rng(0)
    label = np.zeros((height, width), np.uint8)
    for _ in range(300):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(int(side) for side in rng.integers(4, 120, 2))
        cv2.ellipse(label, center, axes, int(rng.integers(180)), 0, 360, int(rng.integers(19)), -1)
    image = rng.integers(256, size=(19, 3))[label] + rng.normal(0, 1.5, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8), label


def published_source(image_file: str, label_file: str, size: tuple[int, int], crop: int) -> tuple:
    """A source sample by mmsegmentation's steps, of a longest and shortest side ``size``."""
    image, label = cv2.imread(image_file), np.array(Image.open(label_file))
    image, label = (
        cv2.resize(one, size, interpolation=how)
        for one, how in ((image, cv2.INTER_LINEAR), (label, cv2.INTER_NEAREST))
    )
    for _ in range(10):
        top = np.random.randint(0, image.shape[0] - crop + 1)
        left = np.random.randint(0, image.shape[1] - crop + 1)
        place = np.s_[top : top + crop, left : left + crop]
        classes, pixels = np.unique(label[place], return_counts=True)
        pixels = pixels[classes != 255]
        if len(pixels) > 1 and pixels.max() / pixels.sum() < 0.75:
            break
    image, label = image[place], label[place]
    if np.random.rand() < 0.5:
        image, label = np.flip(image, 1).copy(), np.flip(label, 1).copy()
    return _tensor(image), torch.from_numpy(label.astype(np.int64))


def published_target(image_file: str, size: tuple[int, int]) -> torch.Tensor:
    """A target image by the same steps, whole."""
    image = cv2.resize(cv2.imread(image_file), size)
    return _tensor(np.flip(image, 1).copy() if np.random.rand() < 0.5 else image)


def _tensor(image: np.ndarray) -> torch.Tensor:
    image = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2RGB)
    cv2.subtract(image, np.float64([MEAN]), image)
    cv2.multiply(image, 1 / np.float64([DEVIATION]), image)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _config(*opts: object) -> CfgNode:
    return pppc.load_config(pppc.get_config_file("gta_to_cityscapes_pppc_mit_b5.yaml"), opts)


def samples(folder: Path, rounds: int) -> str:
    """A table of milliseconds a sample."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    files = [str(folder / name) for name in ("gta.png", "gta_label.png", "cityscapes.png")]
    image, label = draw(1914, 1052)
    for file, pixels in zip(files, (image, label, draw(2048, 1024)[0])):
        cv2.imwrite(file, pixels, PNG_OPTIONS if pixels is label else ())
    published_label = str(
        folder / "gta_label_published.png"
    )  # as the published converter writes it
    Image.fromarray(label).save(published_label)
    time.sleep(5)  # of younger files the content is looked at, too
    sizes = ", ".join(f"{Path(file).name} {os.path.getsize(file) / 1e6:.1f} MB" for file in files)
    source = {"file_name": files[0], "sem_seg_file_name": files[1]}
    reader, target = own_reader("gta_train"), {"file_name": files[2]}
    ways: dict[str, dict[str, Callable]] = {
        "published steps": {
            "source": partial(published_source, files[0], published_label, (1280, 704), 640),
            "target": partial(published_target, files[2], (1280, 640)),
        }
    }
    for name, cache in (("this project", ""), ("from DATALOADER.CACHE", str(folder / "cache"))):
        cfg = _config("DATALOADER.CACHE", cache)
        mappers = SourceMapper(cfg, reader), TargetMapper(cfg)
        ways[name] = {
            domain: partial(mapper, record, None)
            for domain, mapper, record in zip(("source", "target"), mappers, (source, target))
        }
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(-1, rounds):
        for name, domains in ways.items():
            for domain, sample in domains.items():
                arguments = () if name == "published steps" else (number + 1,)
                start = time.process_time()
                sample(*arguments)
                if number >= 0:  # the first warms up, and is kept
                    seconds.setdefault((name, domain), []).append(time.process_time() - start)
    least = {key: 1e3 * min(values) for key, values in seconds.items()}
    rows: list[list[object]] = [[name] for name in ways]
    for row, name in zip(rows, ways):
        for domain in ("source", "target"):
            row += [least[name, domain], least[name, domain] / least["published steps", domain]]
    kept = sum(file.stat().st_size for file in (folder / "cache").iterdir()) / 1e6
    headers = ["", "source, ms", "of the published", "target, ms", "of the published"]
    table = tabulate(rows, headers, "pipe", floatfmt=("", ".1f", ".2f", ".1f", ".2f"))
    return f"{table}\n\n{sizes}; kept: {kept:.1f} MB"


def start(folder: Path, images: int) -> str:
    """A table of seconds before a training's first step."""
    if not (folder / "gta").exists():
        _write_labels(folder / "gta", images)
        time.sleep(5)  # younger files are opened to be sure
    os.environ |= {"DETECTRON2_DATASETS": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    cfg = _config(
        "DATASETS.TARGET", "('gta_train',)", "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", "0",
        "INPUT.CROP.SIZE", "[8, 8]", "INPUT.MIN_SIZE_TRAIN", "(8,)", "INPUT.TARGET.MIN_SIZE", "8",
        "PPPC.SELF_TRAINING.IGNORE_TOP", "0", "PPPC.SELF_TRAINING.IGNORE_BOTTOM", "0",
    )  # fmt: skip
    rows = []
    for name, step in (("check_data", check_data), ("build_train_loader", build_train_loader)):
        before = time.perf_counter(), time.process_time()
        step(cfg) if step is check_data else step(cfg, seed=0)
        rows.append([name, time.perf_counter() - before[0], time.process_time() - before[1]])
    return tabulate(rows, ["step", "seconds", "of a processor"], "pipe", floatfmt=".1f")


def _write_labels(folder: Path, images: int) -> None:
    space = LABEL_SPACES["gta"]
    label_id = {train_id: label_id for label_id, train_id in space.id_to_train_id.items()}
    label = np.arange(64, dtype=np.uint8).reshape(8, 8) % 19
    ids, image = np.vectorize(label_id.get)(label).astype(np.uint8), np.stack([label] * 3, 2)
    image_png, raw, png = (cv2.imencode(".png", one)[1].tobytes() for one in (image, ids, label))
    converted = stamped(png, source_hash(raw, space), label)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(1, images + 1):
        (folder / f"images/{number:05}.png").write_bytes(image_png)
        (folder / f"labels/{number:05}.png").write_bytes(raw)
        (folder / f"labels/{number:05}_labelTrainIds.png").write_bytes(converted)


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("what", choices=("samples", "start"))
    parser.add_argument("folder", type=Path, help="for what is drawn")
    parser.add_argument("--rounds", type=whole_number(1), default=15)
    parser.add_argument("--images", type=whole_number(1), default=24966)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.what == "samples":
        print(samples(arguments.folder, arguments.rounds))
    else:
        print(start(arguments.folder, arguments.images))


if __name__ == "__main__":
    run_tool(main)
