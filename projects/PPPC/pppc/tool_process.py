"""A tool in a process of its own, whose progress can be shown."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from .errors import InputError, Stopped

_PROGRESS = re.compile(
    r"eta: (?P<eta>[\d:, a-z]+?)  iter: (?P<iter>\d+)  total_loss: (?P<loss>\S+)"
)
COMMAND = (sys.executable, "-W", "ignore", "-m", "pppc_command")  # as of the shell's `pppc`


def run_process(command: Sequence[object], name: str = "") -> list[str]:
    """Run a command to its end; under a ``name`` each line of a training's progress is shown.

    SIGTERM is passed on, so that a training writes its checkpoint; Ctrl-C reaches both by itself.

    Returns:
        what it printed, by lines.

    Raises:
        InputError: it refused its input.
        Stopped: a signal ended it.
        RuntimeError: it failed; the message ends with what it printed last.
    """
    words = list(map(str, command))
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    alone = threading.current_thread() is threading.main_thread()  # Python's condition for handlers
    before = alone and signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    lines: list[str] = []
    try:
        while True:
            try:
                for line in process.stdout:
                    lines.append(line.rstrip("\n"))
                    if name and (found := _PROGRESS.search(line)):
                        done, loss, eta = int(found["iter"]) + 1, found["loss"], found["eta"]
                        print(
                            f"  {name:12} iteration {done:5}   loss {loss:6}   ETA {eta}",
                            flush=True,
                        )
                status = process.wait()
                break
            except KeyboardInterrupt:  # its last lines are waited for
                continue
    finally:
        if alone:
            signal.signal(signal.SIGTERM, before)
    last = lines[-1].strip() if lines else ""
    if status == 2:
        raise InputError(last.removeprefix("error: "))
    if status < 0 or status > 128:
        raise Stopped(last or "it was ended from outside", status if status > 0 else 128 - status)
    if status:
        raise RuntimeError("\n".join([f"{' '.join(words)} failed:", *lines[-15:]]))
    return lines
