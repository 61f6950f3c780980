"""Seconds by stage."""

import time
from collections import defaultdict
from collections.abc import Callable

import torch

__all__ = ["Stages"]


class Stages:
    """Times calls by the stage they belong to; a call within another counts for its own alone.

    Args:
        device: whose work is waited for.
    """

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
        """Time a method of an object from now on.

        Args:
            owner: the object.
            method: the method's name; what it holds in attributes stays within reach.
            stage: the stage's name, or a function of the call's arguments that gives it.
        """
        function = getattr(owner, method)
        stages = self

        class Watched:
            def __call__(self, *arguments, **options):
                name = stage if isinstance(stage, str) else stage(*arguments, **options)
                return stages.call(name, function, *arguments, **options)

            def __getattr__(self, name: str):
                return getattr(function, name)

        setattr(owner, method, Watched())

    def take(self) -> dict[str, float]:
        """Seconds of each stage since the last call of this."""
        taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken
