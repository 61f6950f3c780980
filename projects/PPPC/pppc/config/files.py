"""From YAML files and the command line to a configuration."""

import ast
import difflib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from ..data.data_file import register_data_file
from ..errors import InputError
from ..files import read_yaml, user_path
from .checks import check_config
from .defaults import add_pppc_config, by_key, section_of

logger = logging.getLogger(__name__)

BASE = "_BASE_"
FILE, CLASSES = "DATASETS.FILE", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
DECIDED = {  # by a data file
    "DATASETS.TRAIN", "DATASETS.TRAIN_WEIGHTS", "DATASETS.TARGET", "DATASETS.TARGET_WEIGHTS",
    "DATASETS.TEST", CLASSES,
}  # fmt: skip
PATHS = (
    "OUTPUT_DIR", "MODEL.WEIGHTS", "PPPC.IMAGENET_PROTOTYPES.WEIGHTS", "PPPC.FEATURE_DISTANCE.WEIGHTS",
    "DATALOADER.CACHE",
)  # fmt: skip
CONFIGS = Path(__file__).parents[1] / "configs"


def get_config_file(name: str) -> str:
    """The path of a configuration that is installed with the project, as of Detectron2's model_zoo.

    InputError: there is none of this name below configs/.

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
    """As :func:`load_config`, of the keys and values that a file has recorded."""
    cfg = get_cfg()
    add_pppc_config(cfg)
    source = f"{file}, or the options after it" if opts else str(file)
    problems = list(_merge(cfg, _with_data_file(_combined(settings, _pairs(opts)))))
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


def read_settings(path: str, within: tuple[str, ...] = ()) -> dict[str, object]:
    """All keys of a file, with those of the files that its _BASE_ names, and their values.

    ``within`` are the files that have led to it.
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
        settings = _combined(settings, read_settings(base, (*within, path)))
    return _combined(settings, dict(flat_settings(content)))


def _combined(settings: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """Settings, and those that replace them; a data file among these decides all that it can."""
    replaced = DECIDED if more.get(FILE) else ()
    return {key: value for key, value in settings.items() if key not in replaced} | dict(more)


def _with_data_file(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings, and those that their data file decides, where they do not; its data sets are registered.

    Settings that say all that, as a run's do, are used without the file, too: to predict.
    """
    if not settings.get(FILE):
        return dict(settings)
    try:
        data = register_data_file(str(settings[FILE]))
    except InputError as error:
        if not {"DATASETS.TRAIN", CLASSES} <= settings.keys():
            raise
        logger.info("Without its data: %s", error)
        return dict(settings)
    return data.settings() | settings | {FILE: str(data.path)}


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
