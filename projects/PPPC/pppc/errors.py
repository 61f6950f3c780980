"""Errors that the user can fix, and how a tool ends after one."""

import errno
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

# What the file system refuses; no fault of the program's.
_REFUSALS = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}


class InputError(ValueError):
    """Something that the user gave is wrong: an option, a key's value or a file.

    The message is one line that names it and says what to do. Every other exception is a fault of
    the program and keeps its traceback.

    A file's name may hold anything: line ends and bytes that are no text are shown escaped.
    """

    def __init__(self, message: str):
        # A library's reason in it may end with a full stop, too.
        super().__init__(re.sub(r"(?<=\w)\.\.(?= [A-Z])", ".", printable(message)))


def printable(text: str) -> str:
    """One line that every log and terminal takes.

    Examples:
        >>> printable("two\\nlines")
        'two\\\\nlines'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Stopped(SystemExit):
    """A signal, or the end of a process that is needed, ended this process.

    Args:
        message: one line for the user.
        status: the process's exit status; of a signal 128 and its number, as in a shell.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message, status)  # so that other processes get it whole
        self.message = message
        self.code = status

    def __str__(self) -> str:
        return self.message


def run_tool(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool's ``main`` and end the process as the shell expects.

    The exit status is what ``main`` returns (None: 0), 2 after one line "error: ..." where the
    user's input is wrong (as argparse does), 1 after such a line where the file system refuses,
    128 and the signal's number after Ctrl-C or where a signal stopped a run.

    Examples:
        >>> def main():
        ...     raise InputError("street.png: no image. Give a PNG or JPEG file")
        >>> run_tool(main)
        Traceback (most recent call last):
            ...
        SystemExit: 2
    """
    try:
        status = main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except Stopped as stopped:
        print(stopped.message, file=sys.stderr)
        status = stopped.code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        status = 128 + signal.SIGINT
    sys.exit(status)
