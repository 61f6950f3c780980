"""From YAML files and the command line to a configuration."""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager

from ..errors import InputError
from ..files import user_path
from .checks import check_config
from .defaults import add_pppc_config, by_key, section_of

BASE = "_BASE_"
PATHS = ("OUTPUT_DIR", "MODEL.WEIGHTS")
CONFIGS = Path(__file__).parents[1] / "configs"


def get_config_file(name: str) -> str:
    """The path of a configuration that is installed with the project, as of Detectron2's model_zoo.

    Args:
        name: below configs/.

    Raises:
        InputError: there is none of this name.

    Examples:
        >>> Path(get_config_file("gta_to_cityscapes_pppc_mit_b5.yaml")).is_file()
        True
    """
    if (CONFIGS / name).is_file():
        return str(CONFIGS / name)
    names = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
    near = difflib.get_close_matches(name, names, 3) or names
    raise InputError(f"there is no configuration {name!r}: take {' or '.join(near)}")


def load_config(config_file: str | os.PathLike, opts: Sequence[object] = ()) -> CfgNode:
    """The defaults, then a YAML file with its _BASE_, then KEY, VALUE, ... as on the command line.

    ``~`` and environment variables in paths are expanded.

    Raises:
        InputError: a file can't be read or is no YAML; there is no such key; a value is not one
            that its key can have (:func:`pppc.config.checks.check_config`).
    """
    return settings_to_config(read_settings(os.fspath(config_file)), config_file, opts)


def settings_to_config(
    settings: Mapping[str, object], file: str | os.PathLike, opts: Sequence[object] = ()
) -> CfgNode:
    """As :func:`load_config`, of keys and values that a file has recorded.

    Args:
        settings: from :func:`read_settings` or :func:`flat_settings`.
        file: that holds them, for messages.
        opts: KEY, VALUE, ...
    """
    cfg = get_cfg()
    add_pppc_config(cfg)
    source = f"{file}, or the options after it" if opts else str(file)
    problems = [*_merge(cfg, settings), *_merge(cfg, _pairs(opts))]
    if problems:
        raise InputError(f"{source}: {'; '.join(problems)}")
    try:
        check_config(cfg, training=False)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    for key in PATHS:
        node, name = section_of(cfg, key)
        node[name] = user_path(node[name], key)
    return cfg


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


def read_settings(path: str, within: tuple[str, ...] = ()) -> dict[str, object]:
    """All keys of a file, with those of the files that its _BASE_ names, and their values.

    Args:
        path: of the file.
        within: the files that have led to it.
    """
    if not path:
        raise InputError("no configuration: give --config-file FILE.yaml, such as one of configs/")
    path = user_path(path, f"{BASE} of {within[-1]}" if within else "--config-file")
    if path in within:
        raise InputError(f"{path}: its {BASE} leads back to it ({' -> '.join((*within, path))})")
    named = f"{path} (named by {BASE} in {within[-1]})" if within else path
    content = read_yaml(path, named)
    bases = content.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{named}: {BASE} is {bases!r}: give a file's name, or a list of them")
    settings: dict[str, object] = {}
    for base in bases:
        base = user_path(base, f"{BASE} of {path}")
        if "://" not in base:
            base = os.path.normpath(os.path.join(os.path.dirname(path), base))
        settings |= read_settings(base, (*within, path))
    return settings | dict(flat_settings(content))


def flat_settings(content: Mapping, start: str = "") -> Iterator[tuple[str, object]]:
    """Keys with their sections, and values, of YAML's sections within sections."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat_settings(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value


def _pairs(opts: Sequence[object]) -> dict[str, object]:
    """KEY, VALUE, ... by key."""
    words = [str(word) for word in opts]
    for word in words[::2]:
        if word.startswith("-"):
            raise InputError(f"{word} stands among KEY VALUE pairs: give it before them")
        if "=" in word:
            raise InputError(f"{word}: write {word.replace('=', ' ', 1)}, with a space between")
    if len(words) % 2:
        raise InputError(f"{' '.join(words)}: these are no KEY VALUE pairs, one key has no value")
    return dict(zip(words[::2], opts[1::2]))


def _merge(cfg: CfgNode, settings: Mapping[str, object]) -> Iterator[str]:
    """Set keys in place, of whatever value; yields what is wrong with the keys."""
    known = dict(by_key(cfg))
    for key, value in settings.items():
        if key in known:
            node, name = section_of(cfg, key)
            node[name] = _converted(value, known[key])
        elif within := [name for name in known if name.startswith(f"{key}.")]:
            if value:  # without one, an empty section
                yield f"{key} is a section: give its keys, such as {within[0]}"
        else:
            near = [name for name in known if name.endswith(f".{key}")]
            near = near or difflib.get_close_matches(key.upper(), known, 3)
            yield f"there is no key {key}" + (
                f", did you mean {' or '.join(near)}?" if near else ""
            )


def _converted(value: object, default: object) -> object:
    """A value as its key's default is written: numbers and lists may come as text."""
    if isinstance(value, str):
        try:
            literal = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            literal = value
        if isinstance(literal, str) or not isinstance(default, str):
            value = literal
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return type(default)(value)
    return value
