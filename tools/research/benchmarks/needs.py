"""What a training step needs: the most memory at a time, GB, and operations, 10^12."""

import torch
from detectron2.config import CfgNode
from torch._C._profiler import _EventType
from torch.utils.flop_counter import FlopCounterMode

from .training import TrainingStep

__all__ = ["NEEDS"]

STEPS = 3


def _steps(cfg: CfgNode) -> TrainingStep:
    step = TrainingStep(cfg, lone_contrast=False)
    for _ in range(STEPS):
        step.run()
    return step


def process(cfg: CfgNode) -> float:
    """Of the whole process, libraries included; on CUDA what PyTorch has reserved of the device."""
    if _steps(cfg).segmentor.device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    # Not getrusage: its maximum includes the parent's, from before the program was started.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 1e6


def tensors(cfg: CfgNode) -> float:
    """Of tensors that are alive at a time, whatever the allocator does with freed ones."""
    if cfg.MODEL.DEVICE.startswith("cuda"):
        _steps(cfg)
        return torch.cuda.max_memory_allocated() / 1e9
    with torch.profiler.profile(profile_memory=True) as profiler:
        _steps(cfg)
    peak, events = 0, list(profiler.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag == _EventType.Allocation:
            peak = max(peak, event.extra_fields.total_allocated)
    return peak / 1e9


def operations(cfg: CfgNode) -> float:
    """Multiplications and additions of matrix products, convolutions and attention in one step."""
    step = TrainingStep(cfg, lone_contrast=False)
    with FlopCounterMode(display=False) as counter:
        step.run()
    return counter.get_total_flops() / 1e12


NEEDS = {
    "peak memory, process, GB": process,
    "peak memory, tensors, GB": tensors,
    "operations, 10^12": operations,
}
