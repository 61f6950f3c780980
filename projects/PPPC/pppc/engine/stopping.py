"""How a run ends before its time: in all processes alike, with a checkpoint."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..checkpoints.checkpointer import StrictCheckpointer
from ..errors import InputError, Stopped

Result = TypeVar("Result")


class StopOnSignal(HookBase):
    """SIGTERM, Ctrl-C and the death of a loader's process write a checkpoint and end the run.

    All processes agree on it, where the state of training is whole: when a step's data is there, and
    before the results of an evaluation are put together. While a process waits for data or
    evaluates, nothing changes that state, so a signal interrupts it there. The second signal ends
    the process at once.
    """

    #: What is taken as which signal. The process that started several passes a signal on as another
    #: one, since they may have received it themselves, which is no second signal.
    SIGNALS = {
        signal.SIGTERM: signal.SIGTERM,
        signal.SIGINT: signal.SIGINT,
        signal.SIGUSR1: signal.SIGTERM,
        signal.SIGUSR2: signal.SIGINT,
    }

    def __init__(self, checkpointer: StrictCheckpointer):
        self.checkpointer = checkpointer
        self.process = os.getpid()
        self.former: dict[signal.Signals, object] = {}
        self.received: set[bool] = set()  # True: passed on
        self.reason: InputError | Stopped | None = None  # to end
        self.interruptible = False

    def before_train(self) -> None:
        self.completed = self.trainer.start_iter - 1
        self.trainer.data_loader = self._interruptible_batches(self.trainer.data_loader)
        if threading.current_thread() is threading.main_thread():
            # Only where there are several processes another one passes signals on.
            numbers = list(self.SIGNALS)[: 4 if comm.get_world_size() > 1 else 2]
            self.former = {number: signal.signal(number, self._receive) for number in numbers}

    def _receive(self, number: int, frame: object) -> None:
        if os.getpid() != self.process:
            return  # a loader's worker, which ends with its parent
        means = self.SIGNALS[signal.Signals(number)]
        passed_on = number != means
        if passed_on in self.received:
            self.interruptible = False
            raise Stopped(f"stopped at once by a second signal, {means.name}", 128 + means)
        self.received.add(passed_on)
        if self.reason is None:
            self.reason = Stopped(f"stopped by {means.name}", 128 + means)
            if self.interruptible:
                raise self.reason

    def _interruptible_batches(self, data_loader: Iterable) -> Iterator:
        batches = iter(data_loader)
        while True:
            yield self.agreed(lambda: next(batches))

    def agreed(self, function: Callable[[], Result]) -> Result:
        """What a function gives that leaves the state of training alone, if all processes go on.

        Raises:
            InputError: the function of one process raised it.
            Stopped: one process was told to stop; a checkpoint is written.
        """
        result = None
        self.interruptible = True
        try:
            if self.reason is None:
                result = function()
        except (InputError, Stopped) as reason:
            if not self.interruptible:
                raise  # out of `agree` in the function, or at once
            self.reason = reason
        if self.interruptible:
            self.agree()
        return cast(Result, result)

    def agree(self) -> None:
        """End what can be interrupted, here or in :meth:`agreed`; go on if all processes do."""
        self.interruptible = False
        for reason in comm.all_gather(self.reason):
            if isinstance(reason, InputError):
                raise reason
            if reason is not None:
                self._stop(reason)

    def _stop(self, reason: Stopped) -> None:
        """Write a checkpoint that includes the last whole step, and end by Stopped."""
        if self.completed < self.trainer.start_iter:
            raise Stopped(f"{reason.message} before the first iteration", reason.code)
        name = f"model_{self.completed:07d}"
        self.checkpointer.save(name, iteration=self.completed)
        comm.synchronize()  # no process ends, and has the others ended, before it is written
        raise Stopped(
            f"{reason.message} after iteration {self.completed}; "
            f"{self.checkpointer.save_dir}/{name}.pth is written: continue with --resume",
            reason.code,
        )

    def after_step(self) -> None:
        self.completed = self.trainer.iter

    def after_train(self) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)


class StoppableEvaluator(DatasetEvaluator):
    """An evaluator before whose results all processes agree to go on."""

    def __init__(self, evaluator: DatasetEvaluator, stop: StopOnSignal):
        self.evaluator = evaluator
        self.stop = stop
        self.process = evaluator.process

    def reset(self) -> None:
        self.evaluator.reset()
        self.stop.interruptible = True
        if self.stop.reason is not None:
            raise self.stop.reason

    def evaluate(self) -> dict:
        self.stop.agree()
        return self.evaluator.evaluate()
