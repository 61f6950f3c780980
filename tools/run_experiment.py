#!/usr/bin/env python3
"""Run the paper's experiments by their numbers.

    tools/run_experiment.py --list
    tools/run_experiment.py --exp 1 [--model mit_b5] [--method pppc] [--seeds 43,44] [KEY VALUE ...]

Each seed is a run of tools/train_net.py in OUTPUT/NAME/seed_SEED, one after the other. Called again,
it goes on where it stopped: finished seeds are skipped, a stopped one is resumed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent
EXPERIMENTS = {
    1: "gta_to_cityscapes",
    2: "synthia_to_cityscapes",
    3: "cityscapes_to_dark_zurich",
}
METHODS = ("pppc", "dacs", "source_only")
MODELS = {
    "mit_b5": "MiT-B5, DAFormer decoder",
    "r101": "ResNet-101, DeepLabV3+ (the released configuration)",
}


def list_experiments() -> str:
    """A table of every experiment, method and model, and its configuration."""
    rows = [
        [number, method, model, f"configs/{name}_{method}_{model}.yaml"]
        for number, name in EXPERIMENTS.items()
        for method in METHODS
        for model in MODELS
    ]
    return tabulate(rows, headers=["--exp", "--method", "--model", "configuration"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(f"{number}: {name}" for number, name in EXPERIMENTS.items())
    parser.add_argument("--list", action="store_true", help="show what there is and end")
    parser.add_argument("--exp", type=int, metavar="N", help=names)
    parser.add_argument("--method", choices=METHODS, default="pppc")
    parser.add_argument("--model", choices=MODELS, default="mit_b5", help=str(MODELS)[1:-1])
    parser.add_argument("--seeds", default="43", help="one or several: 43,44; 43 is published")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder of all runs")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes of a run")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... of all runs")
    arguments = parser.parse_args()
    if arguments.list:
        print(list_experiments())
        return 0
    if arguments.exp not in EXPERIMENTS:
        given = "none is given" if arguments.exp is None else f"there is no {arguments.exp}"
        sys.exit(f"error: --exp takes the number of an experiment, {given}. They are {names}")
    name = f"{EXPERIMENTS[arguments.exp]}_{arguments.method}_{arguments.model}"
    if not all(seed.isdecimal() for seed in arguments.seeds.split(",")):
        sys.exit(f"error: --seeds takes whole numbers with commas between, not {arguments.seeds!r}")
    for seed in arguments.seeds.split(","):
        folder = arguments.output / name / f"seed_{seed}"
        finished = folder / "finished.json"  # written when all is done, the last evaluation too
        if finished.exists():
            if (options := json.loads(finished.read_text())) != arguments.opts:
                sys.exit(f"error: {folder} is finished, with options {options}: choose another --output")
            print(f"{folder} is finished", flush=True)
            continue
        command = [
            sys.executable, str(REPOSITORY / "tools/train_net.py"), "--resume",
            "--config-file", str(REPOSITORY / "configs" / f"{name}.yaml"),
            "--num-gpus", str(arguments.num_gpus),
            *arguments.opts, "OUTPUT_DIR", str(folder), "SEED", seed,
        ]  # fmt: skip
        if status := subprocess.run(command).returncode:
            return status
        finished.write_text(json.dumps(arguments.opts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
