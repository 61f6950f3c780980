#!/usr/bin/env python3
"""The memory that tools/predict.py takes of folders of many images and of a large image, by a small network.

    tools/research/prediction_memory.py FOLDER --images 1000 10000 --megapixels 200

FOLDER gets the images and predictions. The network has random weights, the demo's decoder and 19 classes.
Each row is a process of its own: its peak memory, as the system counts it, and its seconds.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pppc
from detectron2.modeling import build_model
from pppc.arguments import ToolParser, whole_number
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import run_tool
from tabulate import tabulate

PREDICT = Path(__file__).parents[1] / "predict.py"
OPTIONS = (
    "MODEL.TIMM.NAME", "test_resnet", "MODEL.WEIGHTS", "", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16,
    "MODEL.PROBABILISTIC_HEAD.DIM", 16, "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 128,
    "MODEL.DEVICE", "cpu", "PPPC.CLASS_BALANCE.PREDICTION", 0.0,
)  # fmt: skip


def write_network(path: Path) -> None:
    """A checkpoint of random weights."""
    path.mkdir(parents=True)
    cfg = pppc.load_config(
        pppc.get_config_file("demo_gta_to_cityscapes_pppc.yaml"),
        [*OPTIONS, "OUTPUT_DIR", str(path)],
    )
    StrictCheckpointer(build_model(cfg), str(path), cfg=cfg).save(
        "model_final", trainer={"config": cfg.dump()}
    )


def write_images(folder: Path, number: int, height: int, width: int) -> None:
    """Images of smooth noise, so that files are as large as photographs' are."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(number):
        noise = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        image = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index:06d}.jpg"), image)


def predict(model: Path, images: Path, output: Path, *options: str) -> list[float]:
    """Peak memory in MiB, and seconds."""
    command = [
        sys.executable,
        PREDICT,
        "--model",
        model,
        "--input",
        images,
        "--output",
        output,
        *options,
    ]
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{PREDICT} ended with {process.returncode}")
    return [usage.ru_maxrss / 1024, time.perf_counter() - start]


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--images", type=whole_number(1), nargs="*", default=[1000, 10000])
    parser.add_argument("--megapixels", type=whole_number(1), nargs="*", default=[200])
    args = parser.parse_args()
    write_network(args.folder / "run")
    rows = []
    for number in args.images:
        write_images(args.folder / f"{number}_images", number, 64, 96)
        measured = predict(
            args.folder / "run", args.folder / f"{number}_images", args.folder / f"out_{number}",
            "--save", "masks,confidence,uncertainty",
        )  # fmt: skip
        rows.append([f"{number} images of 96x64", *measured])
    for size in args.megapixels:
        side = round((size * 1e6) ** 0.5) // 8 * 8
        write_images(args.folder / f"{size}_megapixels", 1, side, side)
        folders = args.folder / f"{size}_megapixels", args.folder / f"out_{size}_megapixels"
        rows.append([f"an image of {side}x{side}", *predict(args.folder / "run", *folders)])
    print(tabulate(rows, ["input", "peak memory, MiB", "seconds"], "github", ".0f"))


if __name__ == "__main__":
    run_tool(main)
