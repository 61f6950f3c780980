"""A loader's worker processes, and the memory that their batches pass through."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import TypeVar

import cv2
from torch.utils.data import DataLoader

from ..errors import InputError, Stopped

Batch = TypeVar("Batch")

SHARED_MEMORY = "/dev/shm"  # where Linux keeps it, and PyTorch's workers leave their batches
ADVICE = (
    "Lower DATALOADER.NUM_WORKERS (0 needs none), or start the container with a larger --shm-size"
)


def batches(*loaders: DataLoader) -> Iterator[tuple]:
    """The batches of several loaders, side by side; Stopped: a worker was ended from outside, or crashed."""
    workers, iterators = _start(loaders)
    try:
        yield from zip(*iterators)
    except (RuntimeError, OSError, EOFError) as error:
        # A process that is about to end has closed its files before it tells its status.
        closed = wait([worker.sentinel for worker in workers], timeout=1)
        for worker in workers:
            if worker.sentinel in closed:
                worker.join(5)
            if worker.exitcode:
                raise _worker_ended(worker.exitcode) from error
        raise


def _start(loaders: tuple[DataLoader, ...]) -> tuple[list, list]:
    """The worker processes, and an iterator of each loader.

    OpenCV has no threads meanwhile: the fork of a process in which it has some can hang. And
    PyTorch's handler is taken back, which raises a worker's death wherever this process is, in the
    middle of a training step; without it next() does.
    """
    threads, others = cv2.getNumThreads(), set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    cv2.setNumThreads(0)
    try:
        iterators = [iter(loader) for loader in loaders]
    finally:
        cv2.setNumThreads(threads)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler)
    return [child for child in multiprocessing.active_children() if child not in others], iterators


def _worker_ended(status: int) -> Stopped:
    """Args: status: of the worker; below 0 minus the number of a signal."""
    if status > 0:
        return Stopped(f"stopped, as a loader's process ended with status {status}", status)
    number = signal.Signals(-status)
    by = f"by {number.name}"
    if number == signal.SIGKILL:
        by += " (where memory runs out the system does that: lower DATALOADER.NUM_WORKERS)"
    return Stopped(f"stopped, as a loader's process was ended {by}", 128 + number)


def or_input_error(make: Callable[[], Batch]) -> Batch | InputError:
    """What ``make`` gives, or the InputError that it raises, or what to do where memory lacks.

    An exception would leave a loader's process as many lines of text.
    """
    try:
        return make()
    except InputError as error:
        return error
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        return InputError(f"{SHARED_MEMORY} is too small for the batches of the workers. {ADVICE}")


def shared_bytes(loader: DataLoader, batch_bytes: int) -> int:
    """The most shared memory that a loader's batches take: what is fetched ahead, and one in use."""
    if loader.prefetch_factor is None:  # no workers
        return 0
    return (loader.num_workers * loader.prefetch_factor + 1) * batch_bytes


def require_shared_memory(needed: int, workers: int) -> None:
    """InputError where the batches of ``workers`` worker processes, ``needed`` bytes, do not fit."""
    if not needed or not os.path.isdir(SHARED_MEMORY):
        return
    system = os.statvfs(SHARED_MEMORY)
    free = system.f_bavail * system.f_frsize
    if needed > free:
        raise InputError(
            f"DATALOADER.NUM_WORKERS {workers} needs {needed / 2**20:.1f} MB of shared memory, "
            f"{SHARED_MEMORY} has {free / 2**20:.1f} MB. {ADVICE}"
        )
