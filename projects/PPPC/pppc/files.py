"""Names of files as users write them, reading YAML, and writing files."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from detectron2.utils.file_io import PathManager

from .errors import InputError

_UNFINISHED = "partial_"  # starts the name of a file that is being written


def user_path(path: str, name: str) -> str:
    """A path with ``~`` and environment variables expanded, as a shell does.

    What exists as it is written, and an address (``https://...``), stays. InputError: there is no such
    variable or user; it names the key or option ``name``.
    """
    if "://" in path or os.path.exists(path):
        return path
    expanded = os.path.expandvars(os.path.expanduser(path))
    if left := re.search(r"^~[^/]*|\$\w+|\$\{\w+\}", expanded):
        raise InputError(
            f"{name} is {path!r}, but {left[0]} stands for nothing here: set this variable, or write "
            "the whole path"
        )
    return expanded


def new_file(path: str | os.PathLike, name: str, endings: tuple[str, ...] = ()) -> Path:
    """A path at which a file can be written and none is, seen before the time for it is spent.

    Args:
        path: as the user wrote it, see :func:`user_path`.
        name: of the option, for the message.
        endings: what the file's name may end in; (): anything.

    Raises:
        InputError: something is there; its folder is not, or can't be written to; or the name ends
            in something else.
    """
    path = Path(user_path(os.fspath(path), name))
    if path.is_dir():
        raise InputError(f"{path} is a folder: give {name} the name of a new file")
    if path.exists():
        raise InputError(f"{path} exists: choose another {name}")
    if endings and path.suffix.lower() not in endings:
        raise InputError(f"{path} ends in none of {', '.join(endings)}: choose one for {name}")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first, or choose another {name}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} is read-only: choose another {name}")
    return path


def free_path(path: str | os.PathLike) -> Path:
    """``path``, or where such a file exists, the first of NAME_2, NAME_3, ... that doesn't."""
    free = path = Path(path)
    number = 1
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}_{number}")
    return free


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Another path to write to, which becomes ``path`` at the end, or is removed after an error.

    The content is on the disk before it takes the name, so that a crash of the machine leaves the
    former file or the new one.
    """
    path = Path(path)
    # Another process may be writing the same file.
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}_{path.name}")
    try:
        yield unfinished
        _flush(unfinished)
        os.replace(unfinished, path)
        _flush(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Write a file that is either whole or not there."""
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(content)


def unfinished_files(folder: Path) -> list[Path]:
    """What :func:`atomic_write` is writing in a folder, or what killed processes left of that."""
    return sorted(folder.glob(f"{_UNFINISHED}[0-9]*_*"))


class _Loader(yaml.SafeLoader):
    """YAML in which no key of a section stands twice: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [name.value for name, _ in node.value if name.tag != "tag:yaml.org,2002:merge"]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name} stands twice in a section", node.start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: str, named: str) -> dict:
    """The keys and values of a YAML file.

    Args:
        path: of the file.
        named: how to call it in a message.

    Raises:
        InputError: it can't be read, is no YAML or holds something else.
    """
    try:
        with PathManager.open(path, "rb") as file:
            content = yaml.load(file, _Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{named} is no YAML that can be used here: {reason}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{named}: {reason}. Give the name of a YAML file") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"{named} holds {held}, not KEY: VALUE on each line")
    return content
