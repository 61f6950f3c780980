#!/usr/bin/env python3
"""Time training, evaluation or data loading, of one setting or of two in alternation.

    tools/research/benchmark.py training --config-file configs/FILE.yaml [KEY VALUE ...]
    tools/research/benchmark.py training --config-file ... [KEY VALUE ...] --against SOLVER.AMP.ENABLED True
    tools/research/benchmark.py evaluation|loading --config-file ... [KEY VALUE ...] [--against ...]
    tools/research/benchmark.py training --need "peak memory, process, GB" --config-file ...

Training works on random images of the configured sizes (the target's have twice the crop's width),
evaluation and loading on the configured data sets. Printed are medians, whole and by stage. A training
step is also given in units, forward and backward passes of the plain network in float32 on a source
batch, measured beside it: seconds depend on the machine, units hardly. Peak memory is of three steps:
of the whole process, libraries included (on CUDA what PyTorch reserves of the device), or of the tensors
alive at a time.
"""

import gc
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import pppc
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from pppc.arguments import ToolParser, whole_number
from pppc.config.checks import check_config
from pppc.config.device import require_training_device
from pppc.data import build_test_loader, build_train_loader, label_reader
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.engine.solver import build_optimizer
from pppc.errors import InputError, run_tool
from pppc.evaluation import MeanIoUEvaluator
from pppc.files import new_file, write_atomically
from pppc.pixel_batch import PixelBatch
from tabulate import tabulate
from torch._C._profiler import _EventType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

STEPS = 3  # of a training whose memory is measured


class Stages:
    """Seconds by the stage that calls belong to; a call within another counts for its own alone."""

    def __init__(self, device: torch.device):
        self.device = device
        self._open: list[float] = []  # seconds that calls within each open one have taken
        self._seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def call(self, stage: str, function: Callable, *arguments, **options):
        """Call a function; its time is the stage's."""
        start = self.now()
        self._open.append(0.0)
        result = function(*arguments, **options)
        seconds = self.now() - start
        self._seconds[stage] += seconds - self._open.pop()
        if self._open:
            self._open[-1] += seconds
        return result

    def watch(self, owner: object, method: str, stage: str | Callable[..., str]) -> None:
        """Time a method of an object from now on; ``stage`` may be a function of its arguments."""
        function = getattr(owner, method)
        stages = self

        class Watched:
            def __call__(self, *arguments, **options):
                name = stage if isinstance(stage, str) else stage(*arguments, **options)
                return stages.call(name, function, *arguments, **options)

            def __getattr__(self, name: str):  # what the method holds stays within reach
                return getattr(function, name)

        setattr(owner, method, Watched())

    def take(self) -> dict[str, float]:
        """Seconds of each stage since the last call of this."""
        taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken


def random_pair(cfg: CfgNode) -> tuple[PixelBatch, PixelBatch]:
    """Random source and target batches of the configured sizes."""
    height, width = cfg.INPUT.CROP.SIZE
    generator = torch.Generator().manual_seed(0)

    def images(number: int, width: int) -> torch.Tensor:
        return 255 * torch.rand(number, 3, height, width, generator=generator)

    label = torch.randint(
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (cfg.SOLVER.IMS_PER_BATCH, height // 32, width // 32),
        generator=generator,
    ).repeat_interleave(32, 1).repeat_interleave(32, 2)  # fmt: skip
    source = PixelBatch(images(cfg.SOLVER.IMS_PER_BATCH, width), label)
    return source, PixelBatch(images(cfg.SOLVER.TARGET_IMS_PER_BATCH, 2 * width))


class TrainingStep:
    """The step of a configuration, with the contrast under way, on random images."""

    def __init__(self, cfg: CfgNode):
        torch.manual_seed(0)
        self.segmentor = build_model(cfg).train()
        if not self.segmentor.class_shares.any():
            # A training counts them in its labels; which they are takes no time.
            self.segmentor.class_shares.fill_(1 / len(self.segmentor.class_shares))
        self.stages = Stages(self.segmentor.device)
        optimizer = build_optimizer(cfg, self.segmentor)
        batches = itertools.repeat(random_pair(cfg))
        self.loop = AdaptationLoop.from_config(cfg, self.segmentor, batches, optimizer)
        self.loop.register_hooks(self.loop.hooks())
        self.loop.iter = max(cfg.PPPC.CONTRAST.START_ITER, cfg.SOLVER.MAX_ITER // 2)
        watch = self.stages.watch
        watch(self.loop, "ambiguity_crop", "teacher on the whole target, crop")
        watch(self.loop, "label_target", "teacher on the crop")
        watch(self.loop.dacs_mixing, "strong", "strong augmentation")
        watch(self.loop, "dacs_mixing", "mixing")
        watch(self.loop, "backward_pass", lambda name, *_, **__: f"student {name}")
        watch(optimizer, "step", "optimizer")
        watch(self.loop, "after_step", "moving average")
        if self.segmentor.prototypes is not None:
            watch(self.loop, "prototype_update", "teacher on the source")
            watch(self.segmentor.prototypes, "update", "prototypes")

    def run(self) -> dict[str, float]:
        """One step with its hooks; seconds by stage and of all."""
        start = self.stages.now()
        with EventStorage(self.loop.iter) as self.loop.storage:
            self.loop.before_step()
            self.loop.run_step()
            self.loop.after_step()
        seconds = self.stages.now() - start
        self.loop.iter += 1  # other random numbers
        return self.stages.take() | {"seconds": seconds}


class Unit:
    """One forward and backward pass of the plain network in float32 on a source batch."""

    def __init__(self, cfg: CfgNode):
        plain = cfg.clone()
        plain.merge_from_list(
            ["SOLVER.AMP.ENABLED", False, "MODEL.RECOMPUTE", "none",
             "PPPC.CONTRAST.ENABLED", False, "PPPC.SELF_TRAINING.ENABLED", False,
             "TEST.UNCERTAINTY", False, "TEST.EVALUATE_TEACHER", False]
        )  # fmt: skip
        self.segmentor = build_model(plain).train()
        self.source = random_pair(plain)[0].to(self.segmentor.device)
        self.stages = Stages(self.segmentor.device)

    def run(self) -> float:
        """Its seconds."""
        start = self.stages.now()
        self.segmentor(self.source)["loss_segmentation"].backward()
        seconds = self.stages.now() - start
        self.segmentor.zero_grad()
        return seconds


class Loading:
    """The loader of source and target batches, as a training waits for it."""

    def __init__(self, cfg: CfgNode):
        self.batches = iter(build_train_loader(cfg, seed=0))
        self.images = cfg.SOLVER.IMS_PER_BATCH
        if cfg.PPPC.SELF_TRAINING.ENABLED:
            self.images += cfg.SOLVER.TARGET_IMS_PER_BATCH

    def run(self) -> dict[str, float]:
        """One pair of batches."""
        start = time.perf_counter()
        next(self.batches)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "images per second": self.images / seconds}


class Evaluation:
    """An image of a validation set from its file to the confusion matrix, with random weights."""

    def __init__(self, cfg: CfgNode):
        self.model = build_model(cfg).eval()
        name = cfg.DATASETS.TEST[0]
        self.batches = itertools.chain.from_iterable(itertools.repeat(build_test_loader(cfg, name)))
        self.evaluator = MeanIoUEvaluator(label_reader(cfg, name))
        self.stages = Stages(self.model.device)
        self.stages.watch(self.model, "inference", "network and scores at the image's size")
        self.stages.watch(self.evaluator, "process", "class map, label, confusion matrix")

    def run(self) -> dict[str, float]:
        """One image."""
        start = self.stages.now()
        inputs = self.stages.call("waiting for the image", next, self.batches)
        self.evaluator.process(inputs, self.model(inputs))
        return self.stages.take() | {"seconds": self.stages.now() - start}


KINDS = {"training": TrainingStep, "evaluation": Evaluation, "loading": Loading}


def process_memory(cfg: CfgNode) -> float:
    """GB of the whole process, libraries included; on CUDA what PyTorch has reserved of the device."""
    step = TrainingStep(cfg)
    for _ in range(STEPS):
        step.run()
    if step.segmentor.device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    # Not getrusage: its maximum includes the parent's, from before the program was started.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 1e6


def tensor_memory(cfg: CfgNode) -> float:
    """GB of tensors that are alive at a time, whatever the allocator does with freed ones."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        step = TrainingStep(cfg)
        for _ in range(STEPS):
            step.run()
        device = step.segmentor.device
        del step
        gc.collect()  # what is freed later is never subtracted, and the next call would count it
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak, events = 0, list(profiler.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag == _EventType.Allocation:
            peak = max(peak, event.extra_fields.total_allocated)
    return peak / 1e9


def operations(cfg: CfgNode) -> float:
    """Multiplications and additions of matrix products, convolutions and attention in one step."""
    step = TrainingStep(cfg)
    with FlopCounterMode(display=False) as counter:
        step.run()
    return counter.get_total_flops() / 1e12


class Traffic(TorchDispatchMode):
    """Counts what a GPU would start: operations that compute or copy, and the bytes they read and write."""

    FREE = ("detach", "alias", "empty", "empty_like", "empty_strided", "_unsafe_view", "new_empty")

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not function.is_view and function.overloadpacket.__name__ not in self.FREE:
            leaves = tree_leaves((args, kwargs, result))
            tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.Tensor)}
            self.kernels += 1
            self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        return result


def traffic(cfg: CfgNode) -> str:
    """Operations of a step that a GPU would start, and GB that they read and write."""
    step = TrainingStep(cfg)
    step.run()
    with Traffic() as counted:
        step.run()
    return f"{counted.kernels} operations, {counted.bytes / 1e9:.2f} GB"


def profile(cfg: CfgNode) -> str:
    """One step by the names of its operations, the longest first."""
    step = TrainingStep(cfg)
    step.run()
    with torch.profiler.profile() as profiler:
        step.run()
    by = f"self_{step.segmentor.device.type}_time_total"
    return profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60)


NEEDS = {
    "peak memory, process, GB": process_memory,
    "peak memory, tensors, GB": tensor_memory,
    "operations, 10^12": operations,
    "traffic": traffic,
    "profile": profile,
}


def read_settings(kind: str, config_file: str, opts: list[str]) -> CfgNode:
    """A configuration that can be measured here; InputError: it can't."""
    cfg = pppc.load_config(config_file, opts)
    if kind in ("training", "loading"):
        check_config(cfg)
    require_training_device(cfg)
    if kind == "evaluation" and not cfg.DATASETS.TEST:
        raise InputError(
            f"{config_file}: DATASETS.TEST is empty. Give a labeled data set, such as "
            "DATASETS.TEST \"('cityscapes_val',)\""
        )
    return cfg


def measure(kind: str, configurations: dict[str, CfgNode], rounds: int) -> dict:
    """Alternate the settings, by their names; the first round warms up and is left out."""
    subjects = {name: KINDS[kind](cfg) for name, cfg in configurations.items()}
    unit = Unit(configurations["first"]) if kind == "training" else None
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        unit_seconds = unit.run() if unit else None
        for name, subject in subjects.items():
            row = subject.run()
            if unit:
                row |= {"unit": unit_seconds, "units": row["seconds"] / unit_seconds}
            if number:
                rows[name].append(row)
    results = {"kind": kind, "rounds": rounds}
    main = "units" if unit else "seconds"
    for name, of_rounds in rows.items():
        columns = {key: [row[key] for row in of_rounds] for key in of_rounds[0]}
        results[name] = {key: statistics.median(values) for key, values in columns.items()}
        results[name] |= {"least": min(columns[main]), "most": max(columns[main])}
    if len(rows) == 2:
        pairs = zip(*([row["seconds"] for row in of_rounds] for of_rounds in rows.values()))
        results["ratios"] = [second / first for first, second in pairs]
    return results


def table(results: dict, headers: dict[str, str]) -> str:
    keys = dict.fromkeys(key for name in headers for key in results[name])
    rows = [[key, *(results[name].get(key) for name in headers)] for key in keys]
    text = tabulate(rows, headers=["", *headers.values()], floatfmt=".3f", tablefmt="pipe")
    if ratios := results.get("ratios"):
        middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
        text += f"\n\nSecond over first: {middle:.3f} ({least:.3f} to {most:.3f})"
    return text


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--config-file", required=True)
    parser.add_argument(
        "--against", nargs="+", default=[], metavar="KEY VALUE", help="second setting"
    )
    parser.add_argument("--rounds", type=whole_number(1), default=5)
    parser.add_argument("--json", help="write the results there")
    parser.add_argument("--need", choices=NEEDS, help="print this of a training step alone")
    parser.add_argument("opts", nargs="*", help="KEY VALUE ... of all settings")
    arguments = parser.parse_intermixed_args()
    if arguments.need and (arguments.what != "training" or arguments.against):
        parser.error("--need is of one setting of training")
    settings = {"first": [arguments.config_file, *arguments.opts]}
    if arguments.against:
        settings["second"] = [*settings["first"], *arguments.against]

    json_file = new_file(arguments.json, "--json") if arguments.json else None
    configurations = {
        name: read_settings(arguments.what, file, opts) for name, (file, *opts) in settings.items()
    }
    if arguments.need:
        print(NEEDS[arguments.need](configurations["first"]))
        return
    results = measure(arguments.what, configurations, arguments.rounds)
    titles = {"first": "as configured", "second": " ".join(arguments.against)}
    print(table(results, {name: titles[name] for name in settings}))
    if json_file:
        text = json.dumps({"settings": settings} | results, indent=1) + "\n"
        write_atomically(json_file, text.encode())


if __name__ == "__main__":
    run_tool(main)
