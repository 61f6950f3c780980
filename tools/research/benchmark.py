#!/usr/bin/env python3
"""Time training, inference, evaluation or data loading, of one setting or of two in alternation.

    tools/research/benchmark.py training --config-file configs/FILE.yaml [KEY VALUE ...]
    tools/research/benchmark.py training --config-file ... [KEY VALUE ...] --against SOLVER.AMP.ENABLED True
    tools/research/benchmark.py inference|evaluation|loading --config-file ... [KEY VALUE ...] [--against ...]

Training and inference work on random images of the configured sizes (the target's have twice the
crop's width), evaluation and loading on drawn ones in files of 2048x1024 pixels; --data drawn or own
(in DETECTRON2_DATASETS) lets training load its batches, too.
Printed are medians, whole and by stage. A training step is also given in units, forward and backward
passes of the plain network in float32 on a source batch, measured beside it: seconds depend on the
machine, units hardly. Peak memory is of a process with three steps: the whole of it, libraries
included (on CUDA what PyTorch reserves of the device), and of the tensors alive at a time.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pppc
import torch
from benchmarks.data import Evaluation, Loading, drawn_data
from benchmarks.inference import Inference
from benchmarks.needs import NEEDS
from benchmarks.training import TrainingStep, Unit
from detectron2.config import CfgNode
from pppc.arguments import ToolParser, whole_number
from pppc.config.checks import check_config
from pppc.config.device import check_training_device
from pppc.data import build_train_loader
from pppc.errors import InputError, run_tool
from pppc.files import new_file, write_atomically
from tabulate import tabulate

KINDS = {
    "training": TrainingStep,
    "inference": Inference,
    "evaluation": Evaluation,
    "loading": Loading,
}


# What each can work on, its default first.
DATA = {
    "training": ("random", "drawn", "own"),
    "inference": ("random",),
    "evaluation": ("drawn", "own"),
    "loading": ("drawn", "own"),
}


def read_settings(kind: str, config_file: str, opts: list[str]) -> CfgNode:
    """A configuration that can be measured here.

    Raises:
        InputError: it can't.
    """
    cfg = pppc.load_config(config_file, opts)
    if kind in ("training", "loading"):
        check_config(cfg)
    check_training_device(cfg)
    if kind == "evaluation" and not cfg.DATASETS.TEST:
        raise InputError(
            f"{config_file}: DATASETS.TEST is empty. Give a labeled data set, such as "
            "DATASETS.TEST \"('cityscapes_val',)\""
        )
    return cfg


def build(kind: str, data: str, cfg: CfgNode):
    """What to measure, with random, drawn or the user's own data."""
    if kind == "training" and data != "random":
        return TrainingStep(cfg, build_train_loader(cfg, seed=0))
    return KINDS[kind](cfg)


def measure(kind: str, data: str, configurations: dict[str, list[str]], rounds: int) -> dict:
    """Alternate the settings; the first round warms up and is left out.

    Args:
        kind: what to measure, of :data:`KINDS`.
        data: "random", "drawn" or "own".
        configurations: by the name of a setting, its configuration file and options.
        rounds: how often.
    """
    subjects = {
        name: build(kind, data, read_settings(kind, file, opts))
        for name, (file, *opts) in configurations.items()
    }
    unit = None
    if kind == "training":
        file, *opts = next(iter(configurations.values()))
        unit = Unit(pppc.load_config(file, opts))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        unit_seconds = unit.run() if unit else None
        for name, subject in subjects.items():
            row = subject.run()
            if unit:
                row |= {"unit": unit_seconds, "units": row["seconds"] / unit_seconds}
            if number:
                rows[name].append(row)
    results = {"kind": kind, "data": data, "rounds": rounds}
    for name, of_rounds in rows.items():
        columns = {key: [row[key] for row in of_rounds] for key in of_rounds[0]}
        results[name] = {key: statistics.median(values) for key, values in columns.items()}
        main = "units" if kind == "training" else "seconds"
        results[name] |= {"least": min(columns[main]), "most": max(columns[main])}
    if len(rows) == 2:
        pairs = zip(*([row["seconds"] for row in of_rounds] for of_rounds in rows.values()))
        results["ratios"] = [second / first for first, second in pairs]
    return results


def needs(configuration: list[str]) -> dict[str, float]:
    """What training needs, each measured in a process of its own."""
    measured = {}
    for name in NEEDS:
        command = [sys.executable, "-W", "ignore", __file__, "training", "--need", name,
                   "--config-file", *configuration]  # fmt: skip
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if run.returncode:  # it has said why
            sys.exit(run.returncode)
        measured[name] = float(run.stdout.split()[-1])
    return measured


def table(results: dict, headers: dict[str, str]) -> str:
    keys = dict.fromkeys(key for name in headers for key in results[name])
    rows = [[key, *(results[name].get(key) for name in headers)] for key in keys]
    digits = ".2f" if results["kind"] == "training" else ".3f"
    text = tabulate(rows, headers=["", *headers.values()], floatfmt=digits, tablefmt="pipe")
    if "ratios" in results:
        ratios = results["ratios"]
        text += (
            f"\n\nSecond over first: {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})"
        )
    return text


def profile(step: TrainingStep) -> str:
    """The costliest operations of one step."""
    step.run()
    with torch.profiler.profile() as profiler:
        step.run()
    device = step.segmentor.device.type
    return profiler.key_averages().table(sort_by=f"self_{device}_time_total", row_limit=30)


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--config-file", required=True)
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="KEY VALUE", help="second setting"
    )
    parser.add_argument("--data", choices=DATA["training"])
    parser.add_argument("--rounds", type=whole_number(1), default=5)
    parser.add_argument("--json", help="write the results there")
    parser.add_argument("--profile", action="store_true",
                        help="print the operations of one training step")  # fmt: skip
    parser.add_argument("--need", choices=NEEDS, help="print this of a training step alone")
    parser.add_argument("opts", nargs="*", help="KEY VALUE ... of all settings")
    arguments = parser.parse_intermixed_args()
    alone = [f"--{name}" for name in ("need", "profile") if getattr(arguments, name)]
    if alone and (arguments.what != "training" or arguments.against):
        parser.error(f"{alone[0]} is of one setting of training")
    data = arguments.data or DATA[arguments.what][0]
    if data not in DATA[arguments.what]:
        parser.error(f"{arguments.what} works on {' or '.join(DATA[arguments.what])} data")
    first = [arguments.config_file, *arguments.opts]
    configurations = {"first": first}
    if arguments.against:
        configurations["second"] = [*first, *arguments.against]

    json_file = new_file(arguments.json, "--json") if arguments.json else None
    cfg, *_ = [read_settings(arguments.what, file, opts) for file, *opts in configurations.values()]
    if arguments.need:
        print(NEEDS[arguments.need](cfg))
        return
    if arguments.profile:
        print(profile(TrainingStep(cfg)))
        return
    # First, as long as this process leaves the device to theirs.
    of_training = arguments.what == "training"
    needed = {name: needs(c) for name, c in configurations.items()} if of_training else {}
    with tempfile.TemporaryDirectory() as folder:
        if data == "drawn":
            os.environ["DETECTRON2_DATASETS"] = str(drawn_data(Path(folder)))
        results = measure(arguments.what, data, configurations, arguments.rounds)
    for name, measured in needed.items():
        results[name] |= measured
    titles = {"first": "as configured", "second": " ".join(arguments.against)}
    print(table(results, {name: titles[name] for name in configurations}))
    if json_file:
        text = json.dumps({"settings": configurations} | results, indent=1) + "\n"
        write_atomically(json_file, text.encode())


if __name__ == "__main__":
    run_tool(main)
