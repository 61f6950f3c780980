"""The user's own modules, which register data sets and parts: --import, in every process."""

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import InputError
from .files import user_path

#: The modules and files to import, for processes that this one starts, with os.pathsep between.
IMPORTS = "PPPC_IMPORT"


def import_own(names: Iterable[str]) -> None:
    """Import modules or files, here and in all processes that this one starts.

    Names are of modules, also of the current folder's, or of Python files. The module of a file is named like
    the file, and its folder is searched for what it imports.

    Raises:
        InputError: there is no such module or file, or another module has the file's name. Errors in a
            module are its own.
    """
    names = [_absolute(name) if _is_file(name) else name for name in names]
    for name in names:
        _import(name)
    known = [name for name in os.getenv(IMPORTS, "").split(os.pathsep) if name]
    os.environ[IMPORTS] = os.pathsep.join(dict.fromkeys([*known, *names]))


def import_named() -> None:
    """Import what :data:`IMPORTS` names; the import of pppc ends with it."""
    for name in filter(None, os.getenv(IMPORTS, "").split(os.pathsep)):
        _import(name)


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def _absolute(name: str) -> str:
    return os.path.abspath(user_path(name, "--import"))


def _import(name: str) -> None:
    folder, module = os.getcwd(), name
    if _is_file(name):
        if not os.path.isfile(name):
            raise InputError(f"--import {name}: no such file")
        folder, module = os.path.dirname(name), Path(name).stem
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        file = importlib.import_module(module).__file__
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"--import {name}: there is no module {module}. Give a module, or a file's name with .py"
        ) from error
    if _is_file(name) and not (file and os.path.samefile(file, name)):
        raise InputError(f"--import {name}: another module is named {module}: rename the file")
