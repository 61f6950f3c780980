"""The files of one run in OUTPUT_DIR: whether a run is there, where it goes on, and with what settings."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from ..checkpoints.reading import checkpoint_damage
from ..config.defaults import add_pppc_config, by_key
from ..errors import InputError
from ..files import unfinished_files, write_atomically

__all__ = [
    "MAY_CHANGE",
    "Checkpoint",
    "RunFolder",
    "setting_differences",
    "starting_point",
]

logger = logging.getLogger(__name__)

#: What may differ when a run is continued: keys, or the start of keys, that change how long it
#: trains, on what machine, what is evaluated, kept or shown; not what a step computes.
MAY_CHANGE = (
    "SOLVER.MAX_ITER",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.MAX_TO_KEEP",
    "TEST.",
    "DATASETS.TEST",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "PPPC.CLASS_WEIGHTS.TEST_SPREAD",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.CHECK_SAMPLE",
    # What happens to images that no step has computed anything from.
    "DATALOADER.UNREADABLE",
    "DATALOADER.MAX_UNREADABLE",
    "MODEL.DEVICE",
    "MODEL.RECOMPUTE",
    "CUDNN_BENCHMARK",
    "VIS_PERIOD",
    "OUTPUT_DIR",
    # Where a run began; continued, it has weights of its own.
    "MODEL.WEIGHTS",
    "MODEL.TIMM.PRETRAINED",
)

_RUN_FILES = ("config.yaml", "metrics.json", "last_checkpoint", "pictures")
_RUN_FILE_STARTS = ("log.txt", "events.out.tfevents.")


def setting_differences(recorded: str, cfg: CfgNode) -> list[str]:
    """What differs between a run's recorded settings and ``cfg``, but for :data:`MAY_CHANGE`.

    Args:
        recorded: the run's configuration as YAML. A key that it lacks is newer than the run, and
            has its default there.
        cfg: the configuration that the run would go on with.

    Returns:
        "KEY was OLD and is NEW" each.
    """
    defaults = get_cfg()
    add_pppc_config(defaults)
    # Dumped and read again, so that tuples and lists compare alike.
    old, before, new = (
        dict(by_key(CfgNode.load_cfg(text))) for text in (defaults.dump(), recorded, cfg.dump())
    )
    old |= before
    return [
        f"{key} was {old.get(key)!r} and is {value!r}"
        for key, value in new.items()
        if old.get(key) != value and not key.startswith(MAY_CHANGE)
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


class RunFolder:
    """The folder that holds a run's files.

    Args:
        path: OUTPUT_DIR.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def run_files(self) -> list[str]:
        """Names of the files that a new run would overwrite, or mix with its own."""
        if not self.path.is_dir():
            return []
        names = sorted(entry.name for entry in self.path.iterdir())
        return [
            name
            for name in names
            if name in _RUN_FILES or name.startswith(_RUN_FILE_STARTS) or name.endswith(".pth")
        ]

    def check_new(self) -> None:
        """See that a new run would overwrite nothing.

        Raises:
            InputError: it would, or the folder cannot be one.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"OUTPUT_DIR {self.path} is a file: choose another OUTPUT_DIR")
        if files := self.run_files():
            raise InputError(
                f"{self.path} holds a run already ({', '.join(files[:4])}"
                + (", ..." if len(files) > 4 else "")
                + "): continue it with --resume, or choose another OUTPUT_DIR"
            )

    def _candidates(self) -> list[Path]:
        """Checkpoints, the one to go on from first: that of last_checkpoint, then the newest."""
        whole = set(self.path.glob("*.pth")) - set(unfinished_files(self.path))
        paths = sorted(whole, key=lambda path: -path.stat().st_mtime_ns)
        tag = self.path / "last_checkpoint"
        if tag.is_file():
            tagged = self.path / tag.read_text().strip()
            paths.sort(key=lambda path: path != tagged)
        return paths

    def last_checkpoint(self) -> Checkpoint | None:
        """The checkpoint to go on from; None where the folder has no checkpoint at all.

        A damaged one is passed over for the newest that is whole, and a warning names both.

        Raises:
            InputError: there are checkpoints, but a run can go on from none of them.
        """
        found: list[Checkpoint] = []
        unusable: dict[str, str] = {}
        paths = self._candidates()
        for path in paths:
            checkpoint = self._read(path, unusable)
            if checkpoint is not None:
                found.append(checkpoint)
                if path == paths[0] and (self.path / "last_checkpoint").is_file():
                    break  # the one that is named there
        if not paths:
            return None
        if not found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in unusable.items())
            raise InputError(
                f"{self.path} holds checkpoints, but a run can go on from none of them ({reasons}). "
                "Choose another OUTPUT_DIR, with MODEL.WEIGHTS FILE.pth to start from one's weights"
            )
        best = max(found, key=lambda checkpoint: checkpoint.iteration)
        if unusable:
            logger.warning(
                "Going on from %s instead of %s",
                best.path.name,
                "; ".join(f"{name}, which is damaged ({why})" for name, why in unusable.items()),
            )
        return best

    @staticmethod
    def _read(path: Path, unusable: dict[str, str]) -> Checkpoint | None:
        if reason := checkpoint_damage(path):
            unusable[path.name] = reason
            return None
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        trainer = content.get("trainer", {}) if isinstance(content, dict) else {}
        if "config" not in trainer:
            unusable[path.name] = "it holds no state of a training"
            return None
        return Checkpoint(path, content["iteration"], trainer["config"], trainer["processes"])

    def begin(self, cfg: CfgNode, start_iter: int) -> None:
        """Make the folder this run's: nothing before has written to it.

        Takes a lock for the life of the process, deletes the unfinished files of a killed one,
        forgets the metrics from ``start_iter`` on, which are about to be written again, and writes
        config.yaml.

        Raises:
            InputError: another process is training there, or the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            for path in unfinished_files(self.path):
                path.unlink()
                logger.info("Removed %s, which a killed process left", path.name)
            self._forget_metrics(start_iter)
            write_atomically(self.path / "config.yaml", cfg.dump().encode())
        except OSError as error:
            raise InputError(
                f"OUTPUT_DIR {self.path} cannot be written to ({error}): choose another one"
            ) from error

    def _lock(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is training in {self.path}: wait for its end, or choose another "
                "OUTPUT_DIR"
            ) from error
        except OSError as error:  # some network file systems have no locks
            logger.warning(
                "%s cannot be locked (%s): start one run there at a time", self.path, error
            )

    def metrics(self) -> list[dict]:
        """The lines of metrics.json; a line that a kill cut off is left out."""
        path = self.path / "metrics.json"
        lines = []
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def _forget_metrics(self, start_iter: int) -> None:
        kept = [line for line in self.metrics() if line["iteration"] < start_iter]
        self._write_metrics(kept)

    def add_metrics(self, iteration: int, results: Mapping[str, float]) -> None:
        """Add results to the line of an iteration, or a line where it has none."""
        lines = self.metrics()
        line = next((line for line in lines if line["iteration"] == iteration), None)
        if line is None:
            lines.append(line := {"iteration": iteration})
        line.update(results)
        self._write_metrics(lines)

    def _write_metrics(self, lines: list[dict]) -> None:
        path = self.path / "metrics.json"
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        if text or path.is_file():
            write_atomically(path, text.encode())


def starting_point(
    cfg: CfgNode, resume: bool, allow_changes: bool = False, processes: int = 1
) -> Checkpoint | None:
    """Where training starts: the checkpoint in OUTPUT_DIR to go on from; None: from the beginning.

    Nothing is written.

    Args:
        cfg: the configuration to train with.
        resume: go on from the last checkpoint, if there is one.
        allow_changes: go on although settings changed that decide what is computed.
        processes: that are going to train.

    Raises:
        InputError: a new run would overwrite another one, a run would go on with other settings
            than it was started with, or it has no whole checkpoint or is longer than MAX_ITER.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    if not resume:
        folder.check_new()
        return None
    checkpoint = folder.last_checkpoint()
    if checkpoint is None:
        return None
    if checkpoint.iteration >= cfg.SOLVER.MAX_ITER:
        raise InputError(
            f"{checkpoint.path} has had {checkpoint.iteration + 1} iterations already: set "
            f"SOLVER.MAX_ITER, now {cfg.SOLVER.MAX_ITER}, to that or more"
        )
    recorded = checkpoint.config
    if cfg.SEED < 0:  # whichever was drawn then
        recorded = yaml.safe_dump(yaml.safe_load(recorded) | {"SEED": cfg.SEED})
    differences = setting_differences(recorded, cfg)
    if checkpoint.processes != processes:
        differences.append(f"processes were {checkpoint.processes} and are {processes}")
    if differences and not allow_changes:
        raise InputError(
            f"{checkpoint.path} was trained with other settings: {'; '.join(differences)}. Go on "
            "with the former ones, choose another OUTPUT_DIR, or add --allow-changes"
        )
    for difference in differences:
        logger.warning("Going on with another setting: %s", difference)
    return checkpoint
