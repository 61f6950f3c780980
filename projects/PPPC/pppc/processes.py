"""Work shared by several processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor

from .errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def end_with_parent(worker: int = 0) -> None:
    """Let a worker process live until its parent ends it or is gone; called in the worker.

    Ctrl-C and a batch system's SIGTERM go to all processes of a run; the main one writes a
    checkpoint then, which a worker's death would prevent.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_end, args=(parent.pid,), daemon=True).start()


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, 1)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_processes: int,
    chunk_size: int = 8,
) -> Iterator[Result]:
    """Like ``map``, with the results in order; one process works in place.

    A process is given ``chunk_size`` items at a time.

    The processes are spawned: a fork of one whose OpenCV has started threads can hang for ever. The function
    is one of a module, or a partial of one.

    Raises:
        InputError: a process was ended from outside.
    """
    if num_processes == 1:
        yield from map(function, items)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, spawn, initializer=end_with_parent) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk_size)
        except BrokenProcessPool as error:
            raise InputError(
                f"one of {num_processes} processes was ended by the system, as it does where memory "
                "runs out: use fewer"
            ) from error


def from_main_process(function: Callable[[], Result]) -> Result:
    """What a function gives in a training's main process, in each of its processes; so its InputError."""
    result: Result | InputError | None = None
    if comm.is_main_process():
        try:
            result = function()
        except InputError as error:
            result = error
    result = comm.all_gather(result)[0]
    if isinstance(result, InputError):
        raise result
    return result


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor over the processes of a training."""
    if comm.get_world_size() > 1:
        tensor = tensor.cuda() if dist.get_backend() == "nccl" else tensor
        dist.all_reduce(tensor)
    return tensor
