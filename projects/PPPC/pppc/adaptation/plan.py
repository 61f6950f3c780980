"""What an adaptation will do: the settings of its trainings, each with its reason, steps, memory and time."""

import argparse
import json
import os
import re
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from detectron2.config import CfgNode
from tabulate import tabulate

from ..checkpoints.path_handlers import local_path
from ..config import get_config_file, load_config
from ..config.device import require_training_device
from ..config.files import read_settings
from ..data.catalog import list_records, model_metadata
from ..data.class_counts import class_frequencies
from ..data.data_file import DataFile
from ..data.inspection import inspect_files, refuse_problems
from ..engine.run_folder import RunFolder
from ..errors import InputError, printable
from ..files import write_atomically
from ..modeling.frozen_encoder import wants_imagenet_prototypes
from ..prediction import Predictor, load
from ..tool_process import COMMAND, run_process
from .derived import (
    FEWEST_ITERATIONS,
    SHARE_OF_TRAINING,
    Machine,
    Setting,
    batch_settings,
    calibration_settings,
    class_settings,
    iterations,
    schedule_settings,
    size_settings,
)

ENCODERS = {
    "small": ("Base-Small.yaml", "models/efficientnet_lite0.yaml"),
    "medium": ("Base-PPPC.yaml", "models/r101.yaml"),
    "large": ("Base-PPPC.yaml", "models/mit_b5.yaml"),
}
METHODS = {"source_only": "methods/source_only.yaml", "adapted": "methods/recommended.yaml"}
TITLES = {"source_only": "source-only", "adapted": "adapted"}
OF_PREDICTION = {
    "PPPC.CLASS_BALANCE.PREDICTION",
    "PPPC.IMAGENET_PROTOTYPES.USE",
    "PPPC.IMAGENET_PROTOTYPES.PREDICTION",
}
UNLIKE = (
    "The model of --from predicts without ImageNet prototypes, adapted ones with them, so that a part of the "
    "difference is theirs: PPPC.IMAGENET_PROTOTYPES.PREDICTION False leaves them out."
)
MEASURED_STEPS = 8


def former_plan(path: Path, given: Mapping) -> dict:
    """The plan that was written to a file, for the same arguments.

    Raises:
        InputError: they were others, or the file is damaged.
    """
    try:
        plan = json.loads(path.read_text())
        former = plan["given"]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged: choose another --output") from error
    if different := [key for key in given if former.get(key) != given[key]]:
        was = ", ".join(f"{key} was {former.get(key)!r} and is {given[key]!r}" for key in different)
        raise InputError(
            f"{path.parent} was begun otherwise: {was}. Give the former arguments to go on, or "
            "choose another --output"
        )
    return plan


def recipe(encoder: str, method: str, data: DataFile) -> dict[str, object]:
    """The settings of a training, without what follows from images and machine."""
    files = (*ENCODERS[encoder], METHODS[method])
    settings: dict[str, object] = {}
    for file in files:
        settings |= read_settings(get_config_file(file))
    if method == "adapted":
        settings["PPPC.SELF_TRAINING.START"] = 0.0  # its first teacher is the source-only model
    return settings | data.settings()


def make_plan(args: argparse.Namespace, data: DataFile, output: Path, began: float) -> dict:
    """Look at the data, measure some steps, and decide.

    Args:
        args: of `pppc adapt`.
        data: to be adapted with.
        output: where the runs will be.
        began: when the command did, in seconds since the epoch.

    Returns:
        "text" to be shown, and "files": settings and reasons of each training.

    Raises:
        InputError: a key, a file or the encoder's weights are wrong or missing, or the time is too short.
    """
    cfg = _configuration(recipe(args.encoder, "adapted", data), args.opts)
    require_training_device(cfg)
    given_model = _source_model(args.start, data) if args.start else None
    start = given_model and str(Path(given_model.cfg.MODEL.WEIGHTS).resolve())
    if weights := start or cfg.MODEL.WEIGHTS:
        local_path(weights)  # says how to get them where they are not at hand
    given = dict(zip(args.opts[::2], args.opts[1::2]))
    derived, described = _look_at_data(cfg, args.num_gpus)
    derived = [setting for setting in derived if setting.key not in given]
    settings = {
        name: recipe(args.encoder, name, data)
        | {setting.key: setting.value for setting in derived}
        | given
        for name in METHODS
    }
    # MODEL.WEIGHTS becomes the source-only model.
    settings["adapted"].setdefault("PPPC.IMAGENET_PROTOTYPES.WEIGHTS", cfg.MODEL.WEIGHTS)
    for key in OF_PREDICTION & settings["adapted"].keys():
        settings["source_only"][key] = settings["adapted"][key]  # so that they compare
    trained = METHODS.keys() - {"source_only"} if args.start else METHODS
    if "SOLVER.MAX_ITER" in given:
        number, reason = cfg.SOLVER.MAX_ITER, "given"
        forecast = "How long that takes is not known, since SOLVER.MAX_ITER is given."
    else:
        short = ["MODEL.WEIGHTS", weights or "''", "OUTPUT_DIR"]
        steps = {name: _measured_step(settings[name], args.num_gpus, short) for name in trained}
        number = _iterations_in(args.time - (time.time() - began), steps)
        reason = f"as many as fit into the time, {args.time / 60:g} minutes"
        forecast = _forecast(number, steps)
    derived += [s for s in schedule_settings(number, reason) if s.key not in given]
    start = start or str(output / "source_only/model_final.pth")
    own = [
        Setting("MODEL.WEIGHTS", start, "the source-only model"),
        Setting("TEST.SELECTION.SOURCE_MODEL", start, "which adapting must not make worse"),
    ]
    if not data.val and (period := "TEST.EVAL_PERIOD") not in given:
        own.append(Setting(period, max(1, number // 3), "three, to choose from without labels"))
    files = {}
    for name in METHODS:
        chosen = {s.key: s for s in [*derived, *(own if name == "adapted" else ())]}
        settings[name] |= {key: s.value for key, s in chosen.items()} | {
            "OUTPUT_DIR": str(output / name)
        }
        files[name] = [settings[name], {key: s.reason for key, s in chosen.items()}]
    rows = [("encoder", args.encoder, cfg.MODEL.TIMM.NAME), *derived]
    text = [
        f"Plan for {printable(str(data.path))}", described, "",
        tabulate(rows, headers=["setting", "value", "reason"], maxcolwidths=[None, 20, 70]), "",
        f"{number} iterations of {', then of '.join(TITLES[name] for name in METHODS if name in trained)}.",
        forecast,
        *([UNLIKE] if given_model is not None and _predicts_unlike(given_model, cfg) else []),
        "Ctrl-C stops; the same command goes on where it stopped.",
    ]  # fmt: skip
    return {"text": "\n".join(text) + "\n", "files": files}


def _predicts_unlike(source_only: Predictor, adapted: CfgNode) -> bool:
    """Whether adapted models will predict with ImageNet prototypes, and a given one does not."""
    adapted_do = adapted.PPPC.IMAGENET_PROTOTYPES.PREDICTION and wants_imagenet_prototypes(adapted)
    return adapted_do and not source_only.model.predicts_with_imagenet_prototypes


def _source_model(path: str, data: DataFile) -> Predictor:
    """The model to start from, which adapted models are compared with.

    Raises:
        InputError: it can't be loaded, or has other classes.
    """
    model = load(path)
    if tuple(model.names) != data.classes:
        raise InputError(
            f"--from {path} has the classes {', '.join(model.names)}, the data file "
            f"{', '.join(data.classes)}: give a source-only model of the same classes"
        )
    return model


def _configuration(settings: Mapping[str, object], opts: Sequence[str]) -> CfgNode:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.yaml")
        _write_settings(file, settings, {})
        return load_config(file, opts)


def _look_at_data(cfg: CfgNode, processes: int) -> tuple[list[Setting], str]:
    """What follows from images, labels and the machine, and lines that describe the data."""
    sizes: dict[str, list[tuple[int, int]]] = {}
    skip = cfg.DATALOADER.UNREADABLE == "skip"
    roles = {"source": cfg.DATASETS.TRAIN, "target": cfg.DATASETS.TARGET, "val": cfg.DATASETS.TEST}
    for role, name in ((role, name) for role, names in roles.items() for name in names):
        records = list_records(name)
        found = inspect_files(records, None, (), ())
        allowed = cfg.DATALOADER.MAX_UNREADABLE if skip else None
        refuse_problems(name, found, len(records), allowed)
        sizes.setdefault(role, []).extend(found.images.values())
    shares = dict(zip(model_metadata(cfg).stuff_classes, class_frequencies(cfg)))
    gpu = (
        torch.cuda.get_device_properties(cfg.MODEL.DEVICE).total_memory
        if cfg.MODEL.DEVICE != "cpu"
        else 0
    )
    machine = Machine(gpu, len(os.sched_getaffinity(0)), processes)
    images = ", ".join(f"{role} {len(found)}" for role, found in sizes.items())
    classes = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return (
        [
            *size_settings(sizes, machine),
            *class_settings(shares),
            *calibration_settings(len(sizes["source"])),
            *batch_settings(machine),
        ],
        f"Images: {images}\nClasses, by their share of the source's pixels: {classes}",
    )


class Step(NamedTuple):
    """What a step of a training takes: seconds, and GiB of memory at most."""

    seconds: float
    memory: float


def _measured_step(settings: Mapping[str, object], processes: int, opts: Sequence[str]) -> Step:
    """Of a training of some steps, in a folder that is not kept."""
    print(f"Measuring {MEASURED_STEPS} steps ...", flush=True)
    short = {
        "SOLVER.MAX_ITER": MEASURED_STEPS, "SOLVER.WARMUP_ITERS": 0, "DATASETS.TEST": [],
        "TEST.SELECTION.IMAGES": 0, "TEST.CALIBRATION": "none",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder, "steps.yaml"), Path(folder, "run")
        _write_settings(file, {**settings, **short}, {})
        command = [*COMMAND, "train", "--num-gpus", processes, "--config-file", file, *opts, run]
        lines = run_process(command)
        *_, seconds = (line["time"] for line in RunFolder(run).metrics() if "time" in line)
    found = [int(mebibytes) for mebibytes in re.findall(r"max_mem: (\d+)M", " ".join(lines))]
    # Without a GPU: of the largest process that has ended, in KiB.
    memory = max(found) * 1024 if found else resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Step(seconds, memory / 2**20)


def _iterations_in(seconds: float, steps: Mapping[str, Step]) -> int:
    """Raises InputError where they are too few to learn anything."""
    per_iteration = [step.seconds for step in steps.values()]
    number = iterations(seconds, per_iteration)
    if number < FEWEST_ITERATIONS:
        least = FEWEST_ITERATIONS * sum(per_iteration) / SHARE_OF_TRAINING / 60
        raise InputError(
            f"--time leaves {max(0, seconds):.0f} s for trainings, enough for {number} iterations: give "
            f"{least:.0f} minutes more than that at the very least, hours for a good model"
        )
    return number


def _forecast(number: int, steps: Mapping[str, Step]) -> str:
    seconds = number * sum(step.seconds for step in steps.values()) / SHARE_OF_TRAINING
    end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
    each = ", ".join(
        f"{TITLES[name]} {s.seconds:.2f} s and {s.memory:.1f} GiB" for name, s in steps.items()
    )
    return f"A step, as measured: {each}. Estimated end: {end}, in {max(1, round(seconds / 60))} minutes."


def _write_settings(path: Path, settings: Mapping[str, object], reasons: Mapping[str, str]) -> None:
    """A configuration file, a line for each key with the reason for its value."""
    lines = []
    for key, value in sorted(settings.items()):
        value = list(value) if isinstance(value, tuple) else value
        text = yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]
        lines.append(f"{key}: {text}" + (f"  # {reasons[key]}" if key in reasons else ""))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def write_plan(output: Path, plan: dict, given: Mapping) -> None:
    """Write the trainings' configurations and, last, the plan itself."""
    output.mkdir(parents=True, exist_ok=True)
    for name, (settings, reasons) in plan["files"].items():
        _write_settings(output / f"{name}.yaml", settings, reasons)
    content = {"given": given, "text": plan["text"]}
    write_atomically(output / "plan.json", json.dumps(content, indent=1).encode())
