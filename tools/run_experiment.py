#!/usr/bin/env python3
"""Run the paper's experiments by their numbers.

    tools/run_experiment.py --list
    tools/run_experiment.py --exp 1 [--model mit_b5] [--method pppc] [--recipe published]
        [--seeds 43,44] [KEY VALUE ...]

PPPC runs by the published recipe, if no other is named, and in OUTPUT/NAME_recommended by the
recommended one (configs/methods/recommended.yaml).
Each seed is a run of tools/train_net.py in OUTPUT/NAME/seed_SEED, one after the other. Called again,
it goes on where it stopped: finished seeds are skipped, a stopped one is resumed.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pppc
from pppc.arguments import ToolParser, whole_number
from pppc.config.files import read_settings
from pppc.errors import InputError, run_tool
from pppc.files import user_path, write_atomically
from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent
EXPERIMENTS = {
    1: "gta_to_cityscapes",
    2: "synthia_to_cityscapes",
    3: "cityscapes_to_dark_zurich",
}
FINISHED = "finished.json"  # written when all is done, the last evaluation too
METHODS = ("pppc", "dacs", "source_only")
RECIPES = ("published", "recommended")  # of pppc; the experiments' configurations are published
MODELS = {
    "mit_b5": "MiT-B5, DAFormer decoder",
    "r101": "ResNet-101, DeepLabV3+ (the released configuration)",
    "vit_s": "DINOv2 ViT-S, DAFormer decoder",
    "vit_b": "DINOv2 ViT-B, DAFormer decoder",
    "vit_l": "DINOv2 ViT-L, DAFormer decoder",
}
CONFIGS = REPOSITORY / "configs"


def list_experiments() -> str:
    """A table of every experiment, method and model, and its configuration."""
    rows = [
        [number, method, model, " + ".join(str(file.relative_to(REPOSITORY)) for file in files)]
        for number, name in EXPERIMENTS.items()
        for method in METHODS
        for model in MODELS
        for files in [configuration(name, method, model)]
    ]
    table = tabulate(rows, headers=["--exp", "--method", "--model", "configuration"])
    return (
        f"{table}\n\n--recipe of pppc: published, which these configurations are, if none is given; or "
        "recommended: configs/methods/recommended.yaml over them"
    )


def configuration(name: str, method: str, model: str) -> list[Path]:
    """The configuration of an experiment; a second file's settings are put over it."""
    file = CONFIGS / f"{name}_{method}_{model}.yaml"
    if file.exists():
        return [file]
    return [CONFIGS / f"{name}_pppc_{model}.yaml", CONFIGS / f"methods/{method}.yaml"]


def seeds(text: str) -> list[str]:
    """Seeds with commas between."""
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers) or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give different whole numbers with commas between, such as 43,44"
        )
    return numbers


def by_key(opts: list[str]) -> dict[str, str]:
    """KEY VALUE ... by key, whatever their order."""
    return dict(zip(opts[::2], opts[1::2]))


def is_finished(folder: Path, opts: list[str]) -> bool:
    """Whether a run is finished with these options; InputError: it is, with others.

    Of stopped runs train_net.py compares the settings.
    """
    file = folder / FINISHED
    if not file.exists():
        return False
    try:
        options = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file} is damaged: remove it, and the run is looked at again") from error
    if by_key(options) != by_key(opts):
        raise InputError(f"{folder} is finished, with options {options}: choose another --output")
    return True


def main() -> int:
    parser = ToolParser(__doc__)
    names = ", ".join(f"{number}: {name}" for number, name in EXPERIMENTS.items())
    parser.add_argument("--list", action="store_true", help="show what there is and end")
    parser.add_argument("--exp", type=int, metavar="N", help=names)
    parser.add_argument("--method", choices=METHODS, default="pppc")
    parser.add_argument(
        "--recipe", choices=RECIPES, help="of --method pppc; published if it is not given"
    )
    parser.add_argument("--model", choices=MODELS, default="mit_b5", help=str(MODELS)[1:-1])
    parser.add_argument(
        "--seeds", type=seeds, default="43", help="one or several: 43,44; 43 is published"
    )
    parser.add_argument("--output", default="output", help="folder of all runs")
    parser.add_argument("--num-gpus", type=whole_number(1), default=1, help="processes of a run")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... of all runs")
    arguments = parser.parse_args()
    if arguments.list:
        print(list_experiments())
        return 0
    if arguments.exp not in EXPERIMENTS:
        given = "none is given" if arguments.exp is None else f"there is no {arguments.exp}"
        raise InputError(f"--exp takes the number of an experiment, {given}. They are {names}")
    name = f"{EXPERIMENTS[arguments.exp]}_{arguments.method}_{arguments.model}"
    experiment = EXPERIMENTS[arguments.exp]
    config_file, *over = configuration(experiment, arguments.method, arguments.model)
    if arguments.recipe and arguments.method != "pppc":
        raise InputError(f"--recipe is of --method pppc: leave it out for {arguments.method}")
    if arguments.recipe == "recommended":
        name += "_recommended"
        over.append(CONFIGS / "methods/recommended.yaml")
    settings = [pair for file in over for pair in read_settings(str(file)).items()]
    opts = [*(str(word) for pair in settings for word in pair), *arguments.opts]
    for key, option in (("SEED", "--seeds"), ("OUTPUT_DIR", "--output")):
        if key in arguments.opts[::2]:
            raise InputError(f"{key} differs from run to run: give {option} instead")
    pppc.load_config(config_file, opts)  # what is wrong in it is said once, and first
    output = Path(user_path(arguments.output, "--output"))
    for seed in arguments.seeds:
        folder = output / name / f"seed_{seed}"
        if is_finished(folder, opts):
            print(f"{folder} is finished", flush=True)
            continue
        command = [
            sys.executable, str(REPOSITORY / "tools/train_net.py"), "--resume",
            "--config-file", str(config_file), "--num-gpus", str(arguments.num_gpus),
            *opts, "OUTPUT_DIR", str(folder), "SEED", seed,
        ]  # fmt: skip
        if status := subprocess.run(command).returncode:
            return status
        write_atomically(folder / FINISHED, json.dumps(opts).encode())
    return 0


if __name__ == "__main__":
    run_tool(main)
