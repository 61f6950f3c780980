"""Is a file still the one that was read? By its times, and in doubt by its content.

It counts as unchanged where its size, its times of modification and of status change (in nanoseconds)
and its inode are those of before. The time of status change can't be set by a program: whoever
replaces a file, or restores its date, moves it on. Where it is so young that a later change might have
got the same time, the hash of the content must agree, too. So must it where anything else differs;
then the file was copied or touched, and need not be read again. Nothing that was found is used after a
change of the code that found it.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import PIL

# Coarser than the time stamps of any usual file system (FAT: 2 s).
TIME_STAMP_NS = 4 * 10**9


def file_times(path: str | Path) -> list[int] | None:
    """Size, times of modification and of status change in nanoseconds, inode; None: there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # the readers say what is wrong
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def same_by_times(now: list[int] | None, before: Sequence[int], checked: int) -> bool:
    """Whether a file is the same as when it was read at the time ``checked``, in nanoseconds."""
    return now is not None and now == before and checked - max(now[1:3]) >= TIME_STAMP_NS


def file_digest(path: str) -> str | None:
    """The hash of a file's content; None: it can't be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return None


def text_hash(text: str) -> str:
    """A short hash for the name of a file."""
    return hashlib.blake2b(os.fsencode(text), digest_size=12).hexdigest()


@cache
def code_version(*modules: str) -> str:
    """What decides how files are read: the text of modules of this folder, the versions of libraries."""
    texts = [Path(__file__).with_name(f"{name}.py").read_text() for name in modules]
    return f"{text_hash(''.join(texts))} {cv2.__version__} {PIL.__version__}"
