"""Writing files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole_file", "write_atomically"]


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Another path to write to, which becomes ``path`` at the end, or is removed after an error."""
    path = Path(path)
    # Another process may be writing the same file.
    unfinished = path.with_name(f"partial_{os.getpid()}_{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)
