"""What keeps a run safe: learning rate, checkpoints, evaluation, metrics.

As hooks they act in the order in which the trainer registers them; see
:meth:`pppc.engine.trainer.Trainer.build_hooks`.
"""

import io
import logging
import math
import os
import resource
import shutil
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ..checkpoints.checkpointer import StrictCheckpointer
from ..checkpoints.reading import checkpoint_damage
from ..errors import InputError
from .run_folder import RunFolder
from .selection import selects
from .stopping import StopOnSignal

logger = logging.getLogger(__name__)


class LearningRate(hooks.LRScheduler):
    """Detectron2's, a function of the configuration and the iteration: nothing of it is saved."""

    def before_train(self) -> None:
        super().before_train()
        # The rates of the iteration that comes next, whatever a checkpoint's optimizer holds.
        self.scheduler.last_epoch = self.trainer.start_iter
        for group, rate in zip(self._optimizer.param_groups, self.scheduler.get_lr()):
            group["lr"] = rate

    def state_dict(self) -> dict:
        return {}


class _Size(io.RawIOBase):
    """A file of which only the size is kept."""

    def __init__(self) -> None:
        self.bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, content: bytes) -> int:
        size = memoryview(content).nbytes
        self.bytes += size
        return size


class DiskSpace(HookBase):
    """After the first step: see that all checkpoints to come fit on the disk."""

    def __init__(self, cfg: CfgNode, checkpointer: StrictCheckpointer):
        self.period = cfg.SOLVER.CHECKPOINT_PERIOD
        self.max_to_keep = cfg.SOLVER.MAX_TO_KEEP
        self.best = bool(cfg.DATASETS.TEST) + selects(cfg)
        self.checkpointer = checkpointer

    def after_step(self) -> None:
        if self.trainer.iter != self.trainer.start_iter:
            return
        size = _Size()
        torch.save(self.checkpointer.content(iteration=self.trainer.iter), size)
        periodic = self.trainer.max_iter // self.period
        kept = min(periodic, self.max_to_keep) if self.max_to_keep else periodic
        there = len(self.checkpointer.get_all_checkpoint_files())
        # The final one, the best ones, and one that is being written beside its former version.
        number = max(kept + 1 + self.best - there, 0) + 1
        free = shutil.disk_usage(self.checkpointer.save_dir).free
        logger.info(
            "A checkpoint has %.3g GB; %d at most are kept", size.bytes / 1e9, kept + 1 + self.best
        )
        if number * size.bytes > free:
            raise InputError(
                f"OUTPUT_DIR {self.checkpointer.save_dir} has {free / 1e9:.3g} GB free, checkpoints "
                f"need {number} times {size.bytes / 1e9:.3g} GB: free space, choose another "
                f"OUTPUT_DIR, or keep fewer by SOLVER.MAX_TO_KEEP (now {self.max_to_keep}; 0: all)"
            )


class Checkpoints(hooks.PeriodicCheckpointer):
    """Detectron2's; the final one is written, too, where a run was killed just before."""

    def before_train(self) -> None:
        super().before_train()
        if self.trainer.start_iter == self.max_iter:
            self.step(self.max_iter - 1)


class Evaluation(hooks.EvalHook):
    """Every ``period`` iterations and after the last; after checkpoints, which a failure leaves.

    Where a run was killed before the evaluation of its checkpoint, that is done first.

    Args:
        period: 0: after the last iteration only.
        function: evaluates; returns the results.
        stop: so that a signal need not wait for the end of an evaluation.
        folder: of the run, whose metrics tell what was evaluated.
    """

    def __init__(
        self, period: int, function: Callable[[], dict], stop: StopOnSignal, folder: RunFolder
    ):
        super().__init__(period, function)
        self.stop = stop
        self.folder = folder

    def due(self, iterations: int) -> bool:
        """Whether an evaluation comes after so many iterations."""
        last = iterations == self.trainer.max_iter
        return last or (self._period > 0 and iterations % self._period == 0)

    def before_train(self) -> None:
        iteration = self.trainer.start_iter - 1
        if iteration < 0 or not self.due(iteration + 1):
            return
        recorded = {}
        if comm.is_main_process():
            recorded = next(
                (line for line in self.folder.metrics() if line["iteration"] == iteration), {}
            )
        recorded = comm.all_gather(recorded)[0]
        if any(name.endswith("sem_seg/mIoU") or name.startswith("selection/") for name in recorded):
            return
        storage = self.trainer.storage
        storage.iter = iteration
        self.stop.agreed(self._do_eval)
        if comm.is_main_process():
            latest = storage.latest().items()
            results = {name: value for name, (value, of) in latest if of == iteration}
            self.folder.add_metrics(iteration, results)

    def after_step(self) -> None:
        if self.due(self.trainer.iter + 1):
            self.stop.agreed(self._do_eval)

    def after_train(self) -> None:
        del self._func  # as Detectron2: it is likely to hold the trainer


class BestModel(HookBase):
    """After each evaluation: keep the model with the best figure in model_best_by_labels.pth.

    It is chosen by the test set's labels, so its figure is no fair one: see
    :class:`pppc.engine.selection.Selection`. The figure is in the file, so that a resumed run overwrites
    it by a better one alone.

    Args:
        checkpointer: of the run.
        metric: the figure's name; more is better.
    """

    NAME = "model_best_by_labels"

    def __init__(self, checkpointer: StrictCheckpointer, metric: str):
        self.checkpointer = checkpointer
        self.metric = metric
        self.best = -math.inf

    def before_train(self) -> None:
        path = os.path.join(self.checkpointer.save_dir, f"{self.NAME}.pth")
        if self.trainer.start_iter > 0:
            if os.path.isfile(path) and checkpoint_damage(path) is None:
                content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
                self.best = content.get("best", {}).get(self.metric, -math.inf)
            self._keep_better(self.trainer.start_iter - 1)  # evaluated before the first step

    def after_step(self) -> None:
        self._keep_better(self.trainer.iter)

    def _keep_better(self, iteration: int) -> None:
        value, evaluated = self.trainer.storage.latest().get(self.metric, (-math.inf, None))
        if evaluated == iteration and value > self.best:
            self.best = value
            logger.info("%s %.2f is the best so far", self.metric, value)
            self.checkpointer.save(
                self.NAME, chosen=True, iteration=iteration, best={self.metric: value}
            )


def _most_memory() -> float:
    """GiB."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # from KiB


class MetricsWriter(hooks.PeriodicWriter):
    """Detectron2's, which opens its files when training begins, and writes every evaluation at once.

    With each the most memory that was needed so far: of the GPU, or without one of the process.
    """

    def __init__(self, build_writers: Callable[[], list[EventWriter]], evaluation: Evaluation):
        super().__init__([])
        self.build_writers = build_writers
        self.evaluation = evaluation

    def before_train(self) -> None:
        self._writers = self.build_writers()

    def after_step(self) -> None:
        if self.evaluation.due(self.trainer.iter + 1):
            self.trainer.storage.put_scalar("memory_gib", _most_memory(), smoothing_hint=False)
            for writer in self._writers:
                writer.write()
        else:
            super().after_step()

    def after_train(self) -> None:
        super().after_train()
        del self.build_writers  # it holds the trainer
