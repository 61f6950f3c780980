#!/usr/bin/env python3
"""Time training, inference, evaluation or data loading, of one setting or of two in alternation.

    tools/benchmark.py training --config-file configs/gta_to_cityscapes_pppc_r101.yaml [KEY VALUE ...]
    tools/benchmark.py training --config-file ... [KEY VALUE ...] --against SOLVER.AMP.ENABLED True
    tools/benchmark.py inference|evaluation|loading --config-file ... [KEY VALUE ...] [--against ...]

Training and inference work on random images, of the configured sizes (the target's have twice the
crop's width); evaluation and loading on drawn ones, with the files and sizes of GTA V and Cityscapes.
Printed are medians, whole and by stage. A training step is also given in units, forward and backward
passes of the plain network in float32 on a source batch, measured beside it: seconds depend on the
machine, units hardly.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pppc
import torch
from benchmarks import memory
from benchmarks.data import Evaluation, Loading
from benchmarks.inference import Inference
from benchmarks.training import TrainingStep
from tabulate import tabulate

KINDS = {
    "training": TrainingStep,
    "inference": Inference,
    "evaluation": Evaluation,
    "loading": Loading,
}


def measure(kind: str, configurations: dict[str, list[str]], rounds: int) -> dict:
    """Alternate the settings; the first round warms up and is left out.

    Args:
        kind: what to measure, of :data:`KINDS`.
        configurations: by the name of a setting, its configuration file and options.
        rounds: how often.
    """
    subjects = {
        name: KINDS[kind](pppc.load_config(file, opts))
        for name, (file, *opts) in configurations.items()
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        unit = next(iter(subjects.values())).unit() if kind == "training" else None
        for name, subject in subjects.items():
            row = subject.run()
            if unit is not None:
                row |= {"unit": unit, "units": row["seconds"] / unit}
            if number:
                rows[name].append(row)
    results = {"kind": kind, "rounds": rounds}
    for name, of_rounds in rows.items():
        columns = {key: [row[key] for row in of_rounds] for key in of_rounds[0]}
        results[name] = {key: statistics.median(values) for key, values in columns.items()}
        main = "units" if kind == "training" else "seconds"
        results[name] |= {"least": min(columns[main]), "most": max(columns[main])}
    if len(rows) == 2:
        pairs = zip(*([row["seconds"] for row in of_rounds] for of_rounds in rows.values()))
        results["ratios"] = [second / first for first, second in pairs]
    return results


def peak_memory(configuration: list[str]) -> dict[str, float]:
    """What a training process needs, from processes of their own that do three steps, GB."""
    peaks = {}
    for name in ("process", "tensors"):
        command = [sys.executable, "-W", "ignore", __file__, "training", "--memory", name,
                   "--config-file", *configuration]  # fmt: skip
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[f"peak memory, {name}, GB"] = float(run.stdout.split()[-1])
    return peaks


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
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--against", nargs="+", default=[], metavar="KEY VALUE", help="second setting")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--profile", action="store_true",
                        help="print the operations of one training step")  # fmt: skip
    parser.add_argument("--memory", choices=["process", "tensors"], help="print a training's alone")
    parser.add_argument("opts", nargs="*", help="KEY VALUE ... of all settings")
    arguments = parser.parse_intermixed_args()
    first = [arguments.config_file, *arguments.opts]
    configurations = {"first": first}
    if arguments.against:
        configurations["second"] = [*first, *arguments.against]

    cfg = pppc.load_config(arguments.config_file, arguments.opts)
    if arguments.memory:
        print(memory.MEASURES[arguments.memory](cfg))
        return
    if arguments.profile:
        print(profile(TrainingStep(cfg)))
        return
    results = measure(arguments.what, configurations, arguments.rounds)
    if arguments.what == "training":
        for name, configuration in configurations.items():
            results[name] |= peak_memory(configuration)
    titles = {"first": "as configured", "second": " ".join(arguments.against)}
    print(table(results, {name: titles[name] for name in configurations}))
    if arguments.json:
        arguments.json.write_text(json.dumps(configurations | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
