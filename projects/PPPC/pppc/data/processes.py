"""Work shared by several processes."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from detectron2.utils import comm

from ..errors import InputError

__all__ = ["from_main_process", "map_in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    num_processes: int,
    chunk_size: int = 8,
) -> Iterator[Result]:
    """Like ``map``, with the results in order; one process works in place.

    The processes are spawned: a fork of one whose OpenCV has started threads can hang for ever.

    Args:
        function: a function of a module, or a partial of one.
        items: its arguments.
        num_processes: how many processes work.
        chunk_size: items handed to a process at a time.
    """
    if num_processes == 1:
        yield from map(function, items)
        return
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        yield from pool.imap(function, items, chunk_size)


def from_main_process(function: Callable[[], Result]) -> Result:
    """What a function gives in the main process of a training, in each of its processes.

    Raises:
        InputError: in all of them, where the function raises it.
    """
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
