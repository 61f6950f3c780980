"""Where a run starts: the checkpoint in OUTPUT_DIR to go on from, and with what settings."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from detectron2.config import CfgNode, get_cfg

from ..checkpoints.reading import checkpoint_damage
from ..config.defaults import add_pppc_config, by_key
from ..errors import InputError, printable
from ..files import unfinished_files
from .run_folder import RunFolder, settled

logger = logging.getLogger(__name__)
Found = TypeVar("Found")

# Continued, a run has weights of its own.
WHERE_IT_BEGAN = (
    "MODEL.WEIGHTS",
    "MODEL.TIMM.PRETRAINED",
    "PPPC.IMAGENET_PROTOTYPES.WEIGHTS",
)

#: What may differ when a run is continued: keys, or the start of keys, that change how long it
#: trains, on what machine, what is evaluated, kept or shown; not what a step computes.
MAY_CHANGE = (
    "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.MAX_TO_KEEP",
    "TEST.",
    "DATASETS.TEST",
    "DATASETS.FILE",  # where it is; its data sets keep their names
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "PPPC.CLASS_WEIGHTS.TEST_",
    "PPPC.CLASS_BALANCE.PREDICTION",
    "PPPC.IMAGENET_PROTOTYPES.PREDICTION",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.CACHE",
    "DATALOADER.CHECK_SAMPLE",
    # What happens to images that no step has computed anything from.
    "DATALOADER.UNREADABLE",
    "DATALOADER.MAX_UNREADABLE",
    "MODEL.DEVICE",
    "CUDNN_BENCHMARK",
    "VIS_PERIOD",
    "TRACKERS",
    "OUTPUT_DIR",
    *WHERE_IT_BEGAN,
)


def setting_differences(recorded: str, cfg: CfgNode) -> list[str]:
    """What differs between a run's recorded settings and ``cfg``, but for :data:`MAY_CHANGE`: sentences.

    A key that the run's YAML lacks is newer than it, and has its default there.
    """
    defaults = get_cfg()
    add_pppc_config(defaults)
    # Dumped and read again, so that tuples and lists compare alike.
    old, before, new = (
        dict(by_key(CfgNode.load_cfg(text))) for text in (defaults.dump(), recorded, cfg.dump())
    )
    old |= before
    distance = cfg.PPPC.FEATURE_DISTANCE
    # Its frozen encoder is made of MODEL.WEIGHTS each time.
    fixed = WHERE_IT_BEGAN if distance.LOSS_WEIGHT and not distance.WEIGHTS else ()
    return [
        f"{key} was {old.get(key)!r} and is {value!r}"
        for key, value in new.items()
        if old.get(key) != value and (key in fixed or not key.startswith(MAY_CHANGE))
    ]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a run can go on from.

    Attributes:
        path: of the file.
        iteration: the last one that it includes, from 0.
        config: the run's configuration as YAML.
        processes: that the run was trained with.
    """

    path: Path
    iteration: int
    config: str
    processes: int


def last_checkpoint(
    cfg: CfgNode, config_file: str = "", otherwise: str = "training begins with iteration 0"
) -> Checkpoint | None:
    """The checkpoint in OUTPUT_DIR to go on from; None where it holds no file of one.

    It is the one that the file last_checkpoint names. Where that is none or damaged, it is the whole
    one with the most iterations, and a warning tells what was looked for.

    Args:
        config_file: that ``cfg`` was read from, which may lie in the folder of another run.
        otherwise: what happens without a checkpoint, for the warning.

    Raises:
        InputError: there are checkpoints, but a run can go on from none of them.
    """
    folder = Path(cfg.OUTPUT_DIR)
    place = f"{folder.absolute()}"
    if not folder.is_absolute():
        place += f" (OUTPUT_DIR {folder}, seen from {os.getcwd()})"
    elsewhere = _elsewhere(config_file, folder)
    paths = set(folder.glob("*.pth")) - set(unfinished_files(folder))
    named, doubt = _named_last(folder, paths)
    unusable: dict[str, str] = {}
    found = [opened for path in sorted(paths) if (opened := _opened(path, unusable))]
    found.sort(key=lambda checkpoint: (checkpoint.path.name != named, -checkpoint.iteration))
    for best in found:
        if reason := checkpoint_damage(best.path):
            unusable[best.path.name] = f"is damaged ({reason})"
            continue
        instead = [
            f"{other.path.name}, which has more iterations, but is not named by last_checkpoint"
            for other in found
            if other.iteration > best.iteration and other.path.name not in unusable
        ]
        if best.path.name != named:
            instead += [doubt] if doubt else []
            instead += [f"{name}, which {reason}" for name, reason in unusable.items()]
        if instead or elsewhere:
            logger.warning(
                "Going on from %s%s, in %s after iteration %d%s", best.path.name,
                f" instead of {'; '.join(instead)}" if instead else "",
                place, best.iteration, elsewhere,
            )  # fmt: skip
        return best
    if paths:
        reasons = "; ".join(f"{name} {reason}" for name, reason in unusable.items())
        raise InputError(
            f"{folder} holds checkpoints, but a run can go on from none of them ({reasons}). "
            "Choose another OUTPUT_DIR, with MODEL.WEIGHTS FILE.pth to start from one's weights"
        )
    nor = f", nor {doubt}" if (folder / "last_checkpoint").exists() else ""
    logger.warning("--resume found no checkpoint in %s%s: %s%s", place, nor, otherwise, elsewhere)
    return None


def _named_last(folder: Path, paths: set[Path]) -> tuple[str, str]:
    """Which of ``paths`` the file last_checkpoint names, or else what is wrong with it."""
    file = folder / "last_checkpoint"
    try:
        name = file.read_text().strip()
    except FileNotFoundError:
        return "", "the one of last_checkpoint, a file that is not there"
    except (OSError, UnicodeDecodeError) as error:
        return "", f"the one of last_checkpoint, a file that cannot be read ({error})"
    if not name:
        return "", "the one of last_checkpoint, a file that is empty"
    if folder / name not in paths:
        return "", f"{printable(name)}, which last_checkpoint names and which is not there"
    return name, ""


def _opened(path: Path, unusable: dict[str, str]) -> Checkpoint | None:
    """A checkpoint as far as its head tells; why it is none goes to ``unusable``."""
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # of many types where the head makes no sense
        reason = checkpoint_damage(path) or printable(str(error))
        unusable[path.name] = f"is damaged ({reason})"
        return None
    trainer = content.get("trainer") if isinstance(content, dict) else None
    try:
        return Checkpoint(path, content["iteration"], trainer["config"], trainer["processes"])
    except (KeyError, TypeError):
        unusable[path.name] = "holds no state of a training"
        return None


def _elsewhere(config_file: str, folder: Path) -> str:
    """A remark where the configuration lies in the folder of another run, such as a moved one."""
    beside = Path(config_file).absolute().parent
    if not config_file or beside.resolve() == folder.resolve() or not any(beside.glob("*.pth")):
        return ""
    return (
        f". But {config_file} lies in the folder of another run: to go on there, add "
        f"OUTPUT_DIR {beside}"
    )


def starting_point(
    cfg: CfgNode,
    resume: bool,
    allow_changes: bool = False,
    processes: int = 1,
    config_file: str = "",
) -> Checkpoint | None:
    """Where training starts: the checkpoint in OUTPUT_DIR to go on from; None: from the beginning.

    Nothing is written.

    Args:
        resume: go on from the last checkpoint, if there is one.
        allow_changes: go on although settings changed that decide what is computed.
        processes: that are going to train.
        config_file: that ``cfg`` was read from.

    Raises:
        InputError: a new run would overwrite another one, a run would go on with other settings
            than it was started with, or it has no whole checkpoint or is longer than MAX_ITER.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    if not resume:
        folder.check_new(cfg)
        return None
    checkpoint = last_checkpoint(cfg, config_file)
    if checkpoint is None:  # a run may have ended before its first one
        recorded, source = folder.recorded_config(), folder.path / "config.yaml"
        if recorded is None:
            return None
    else:
        recorded, source = checkpoint.config, checkpoint.path
        if checkpoint.iteration >= cfg.SOLVER.MAX_ITER:
            raise InputError(
                f"{source} has had {checkpoint.iteration + 1} iterations already: set "
                f"SOLVER.MAX_ITER, now {cfg.SOLVER.MAX_ITER}, to that or more"
            )
    differences = setting_differences(recorded, settled(cfg, recorded))
    if checkpoint is not None and checkpoint.processes != processes:
        differences.append(f"processes were {checkpoint.processes} and are {processes}")
    if differences and not allow_changes:
        raise InputError(
            f"{source} is of other settings: {'; '.join(differences)}. Go on with the former ones, "
            "choose another OUTPUT_DIR, or add --allow-changes"
        )
    for difference in differences:
        logger.warning("Going on with another setting: %s", difference)
    return checkpoint
