#!/usr/bin/env python3
"""Time the training step by its stages, or inference, on random images.

    tools/benchmark.py training --config-file configs/gta_to_cityscapes_pppc_r101.yaml [KEY VALUE ...]
    tools/benchmark.py training --config-file ... [KEY VALUE ...] --against SOLVER.AMP.ENABLED True
    tools/benchmark.py inference --config-file ... [KEY VALUE ...]

A step is measured beside a unit, one forward and backward pass of the plain segmentation network in
float32 on a batch of source crops: seconds depend on the machine, steps in units hardly. The target
images have twice the crop's width. --against measures a second setting in alternation with the first,
and gives the ratio. Peak memory is that of a process of its own that does three steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pppc
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from pppc.engine.trainer import AdaptationLoop
from pppc.segmentor import PPPCSegmentor, pixel_cross_entropy
from pppc.solver import build_optimizer
from pppc.structures import PixelBatch
from pppc.teacher import update_teacher
from tabulate import tabulate

# Methods of the step that are timed, by the names of their stages.
STAGES = {
    "ambiguity_crop": "teacher on the whole target, crop",
    "with_pseudo_label": "teacher on the crop",
    "prototype_update": "teacher on the source, prototypes",
    "dacs_mixing": "mixing",
    "backward_pass": "student",
}


class RandomData:
    """Endless pairs of random source and target batches of the configured sizes."""

    def __init__(self, cfg: CfgNode):
        height, width = cfg.INPUT.CROP.SIZE
        generator = torch.Generator().manual_seed(0)

        def images(number: int, width: int) -> torch.Tensor:
            return 255 * torch.rand(number, 3, height, width, generator=generator)

        label = torch.randint(
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (cfg.SOLVER.IMS_PER_BATCH, height // 32, width // 32),
            generator=generator,
        ).repeat_interleave(32, 1).repeat_interleave(32, 2)  # fmt: skip
        self.pair = (
            PixelBatch(images(cfg.SOLVER.IMS_PER_BATCH, width), label),
            PixelBatch(images(cfg.SOLVER.TARGET_IMS_PER_BATCH, 2 * width)),
        )

    def __iter__(self) -> Iterator[tuple[PixelBatch, PixelBatch]]:
        while True:
            yield self.pair


class Step:
    """The training step of a configuration, its stages timed, with the contrast under way."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg
        torch.manual_seed(0)
        self.segmentor: PPPCSegmentor = build_model(cfg).train()
        optimizer = build_optimizer(cfg, self.segmentor)
        self.loop = AdaptationLoop(cfg, self.segmentor, RandomData(cfg), optimizer, seed=0)
        self.loop.iter = max(cfg.PPPC.CONTRAST.START_ITER, cfg.SOLVER.MAX_ITER // 2)
        self.stages: dict[str, list[float]] = defaultdict(list)
        for name, stage in STAGES.items():
            setattr(self.loop, name, self._timed(getattr(self.loop, name), stage))

    def _timed(self, function: Callable, stage: str) -> Callable:
        class Timed:
            """Times calls and passes everything else on."""

            def __call__(_, *arguments, **options):
                start = self.now()
                result = function(*arguments, **options)
                name = f"{stage} {arguments[0]}" if stage == "student" else stage
                self.stages[name].append(self.now() - start)
                return result

            def __getattr__(_, name: str):
                return getattr(function, name)

        return Timed()

    def now(self) -> float:
        if self.segmentor.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def run(self) -> float:
        """One step, EMA included; its seconds."""
        start = self.now()
        if self.segmentor.teacher is not None:
            update_teacher(self.segmentor.teacher, self.segmentor.student, 0.999)
            self.stages["EMA"].append(self.now() - start)
        with EventStorage(self.loop.iter):
            self.loop.run_step()
        return self.now() - start

    def unit(self) -> float:
        """Seconds of one forward and backward pass of the plain network in float32."""
        source = next(iter(self.loop.data_loader))[0].to(self.segmentor.device)
        student = self.segmentor.student
        precision, student.mixed_precision = student.mixed_precision, None
        start = self.now()
        logits = student(source.image, embedding=False).logits
        pixel_cross_entropy(logits, source.label, None, self.segmentor.ignore_label).backward()
        student.mixed_precision = precision
        seconds = self.now() - start
        self.loop.optimizer.zero_grad()
        return seconds


def configuration(arguments: argparse.Namespace, more: list[str] = ()) -> CfgNode:
    return pppc.load_config(arguments.config_file, [*arguments.opts, *more])


def peak_memory(arguments: argparse.Namespace, more: list[str]) -> float:
    """GB that a process needs at most for three steps."""
    command = [sys.executable, "-W", "ignore", __file__, "memory", "--config-file",
               arguments.config_file, *arguments.opts, *more]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(output.split()[-1])


def measure_memory(cfg: CfgNode) -> None:
    step = Step(cfg)
    for _ in range(3):
        step.run()
    if step.segmentor.device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 1e9)
    else:
        # Not getrusage: its maximum includes the parent's, from before the program was started.
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(int(status["VmHWM"].split()[0]) / 1e6)


def measure_training(arguments: argparse.Namespace) -> dict:
    """Alternate unit, step and, if there is one, the other setting's step."""
    settings = {"first": []} | ({"second": arguments.against} if arguments.against else {})
    steps = {name: Step(configuration(arguments, more)) for name, more in settings.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ("unit", *settings)}
    for _ in range(arguments.rounds + 1):
        seconds["unit"].append(steps["first"].unit())
        for name, step in steps.items():
            seconds[name].append(step.run())
    results: dict = {"settings": settings, "unit_seconds": statistics.median(seconds["unit"][1:])}
    for name, step in steps.items():
        in_units = [s / u for s, u in zip(seconds[name][1:], seconds["unit"][1:])]
        results[name] = {
            "seconds": statistics.median(seconds[name][1:]),
            "units": statistics.median(in_units),
            "units_spread": [min(in_units), max(in_units)],
            "peak_memory_GB": peak_memory(arguments, settings[name]),
            "stages": {stage: statistics.median(times[1:]) for stage, times in step.stages.items()},
        }
    if arguments.against:
        ratios = [b / a for a, b in zip(seconds["first"][1:], seconds["second"][1:])]
        results["second_over_first"] = statistics.median(ratios)
    return results


def table_of_training(results: dict) -> str:
    names = [name for name in ("first", "second") if name in results]
    stages = list(dict.fromkeys(stage for name in names for stage in results[name]["stages"]))
    rows = [[stage, *(results[name]["stages"].get(stage) for name in names)] for stage in stages]
    rows.append(["whole step, seconds", *(results[name]["seconds"] for name in names)])
    rows.append(["whole step, units", *(results[name]["units"] for name in names)])
    for end, index in (("least", 0), ("most", 1)):
        rows.append([f"  {end}", *(results[name]["units_spread"][index] for name in names)])
    rows.append(["peak memory, GB", *(results[name]["peak_memory_GB"] for name in names)])
    headers = ["", *(" ".join(results["settings"][name]) or "as configured" for name in names)]
    text = tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe")
    text += f"\n\nA unit took {results['unit_seconds']:.2f} s."
    if "second_over_first" in results:
        text += f" Second over first: {results['second_over_first']:.3f}"
    return text


def measure_inference(arguments: argparse.Namespace) -> dict:
    """Seconds of predicting one image of the test size, from tensor to scores at that size."""
    cfg = configuration(arguments)
    model = build_model(cfg).eval()
    size = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    inputs = [{"image": 255 * torch.rand(3, *size)}]
    seconds = []
    for _ in range(arguments.rounds + 1):
        start = time.perf_counter()
        model(inputs)[0]["sem_seg"].sum().item()
        seconds.append(time.perf_counter() - start)
    return {"size": size, "seconds": statistics.median(seconds[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["training", "inference", "memory"])
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--against", nargs="+", default=[], metavar="KEY VALUE", help="second setting")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--profile", action="store_true", help="print the operations of one step")
    parser.add_argument("opts", nargs="*", help="KEY VALUE ... of all settings")
    arguments = parser.parse_intermixed_args()
    if arguments.what == "memory":
        measure_memory(configuration(arguments))
        return
    if arguments.profile:
        step = Step(configuration(arguments))
        step.run()
        with torch.profiler.profile() as profile:
            step.run()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30))
        return
    if arguments.what == "training":
        results = measure_training(arguments)
        print(table_of_training(results))
    else:
        results = measure_inference(arguments)
        print(f"{results['seconds']:.3f} s for an image of {results['size']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
