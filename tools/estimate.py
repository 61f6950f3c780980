#!/usr/bin/env python3
"""What memory and time a training will take, from a few steps at two smaller crops.

    tools/estimate.py --config-file configs/FILE.yaml [KEY VALUE ...]

It takes random images and weights, so no data set is needed. Memory and time of a step grow linearly with
the crop's area: the line through both crops is read at INPUT.CROP.SIZE. Memory is that of tensors;
libraries, and what PyTorch keeps of freed memory, come on top, on a GPU one to two GB. Time is that of the
step alone, on this machine's device: not of loading and evaluating.
"""

import statistics
from typing import NamedTuple

from detectron2.config import CfgNode
from pppc.arguments import ToolParser
from pppc.errors import InputError, run_tool
from research.benchmark import TrainingStep, read_settings, tensor_memory
from tabulate import tabulate

SHARES = (
    0.5,
    0.75,
)  # of the crop's sides; of much smaller crops the optimizer needs most memory, not the passes
STEPS = 3  # that are timed, after a first one


class Cost(NamedTuple):
    """Of a step: the crop, the memory of its tensors in GB, seconds."""

    size: tuple[int, int]
    memory: float
    seconds: float

    @property
    def area(self) -> int:
        return self.size[0] * self.size[1]


def with_crop(cfg: CfgNode, size: tuple[int, int]) -> CfgNode:
    other = cfg.clone()
    other.INPUT.CROP.SIZE = list(size)
    return other


def measured(cfg: CfgNode) -> Cost:
    """Of steps that are made."""
    memory = tensor_memory(cfg)
    step = TrainingStep(cfg)
    seconds = [step.run()["seconds"] for _ in range(1 + STEPS)][1:]
    return Cost(tuple(cfg.INPUT.CROP.SIZE), memory, statistics.median(seconds))


def extrapolated(small: Cost, large: Cost, size: tuple[int, int]) -> Cost:
    """The line through two costs, at another size.

    Examples:
        >>> extrapolated(Cost((1, 1), 2.0, 0.1), Cost((1, 2), 3.0, 0.3), (2, 2)).memory
        5.0
    """
    place = (size[0] * size[1] - small.area) / (large.area - small.area)
    memory, seconds = (a + place * (b - a) for a, b in zip(small[1:], large[1:]))
    return Cost(size, memory, seconds)


def estimate(cfg: CfgNode) -> list[Cost]:
    """Two measured costs, and the one of the configuration.

    Raises:
        InputError: the crop is too small for two smaller ones.
    """
    size = tuple(cfg.INPUT.CROP.SIZE)
    smaller = [tuple(max(64, round(share * side / 32) * 32) for side in size) for share in SHARES]
    if len({*smaller, size}) < 3:
        raise InputError(
            f"INPUT.CROP.SIZE is {list(size)}: crops of so few pixels need no estimate, "
            "tools/research/benchmark.py measures them"
        )
    small, large = (measured(with_crop(cfg, one)) for one in smaller)
    return [small, large, extrapolated(small, large, size)]


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("opts", nargs="*", help="KEY VALUE ...")
    arguments = parser.parse_intermixed_args()
    cfg = read_settings("training", arguments.config_file, arguments.opts)
    costs = estimate(cfg)
    rows = [
        (f"{cost.size[0]}x{cost.size[1]}", how, cost.memory, cost.seconds)
        for cost, how in zip(costs, ("measured", "measured", "estimated"))
    ]
    print(tabulate(rows, ["crop", "", "memory of tensors, GB", "seconds a step"], floatfmt=".3f"))
    hours = cfg.SOLVER.MAX_ITER * costs[-1].seconds / 3600
    print(f"\n{cfg.SOLVER.MAX_ITER} iterations on {cfg.MODEL.DEVICE}: {hours:.1f} hours")


if __name__ == "__main__":
    run_tool(main)
