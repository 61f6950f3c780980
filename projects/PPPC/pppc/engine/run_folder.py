"""The files of one run in OUTPUT_DIR: whether a run is there, its lock and its metrics."""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml
from detectron2.config import CfgNode

from ..config.defaults import by_key
from ..errors import InputError
from ..files import free_path, unfinished_files, write_atomically
from .environment import STARTS, record_start

logger = logging.getLogger(__name__)

_RUN_FILES = (
    "config.yaml", "metrics.json", "last_checkpoint", "pictures", "selection.npz", STARTS,
    "report.html", "report.json", "report.csv",
)  # fmt: skip
_LOG = "log.txt"  # starts the name of each process's
_EVENTS = "events.out.tfevents."


def settled(cfg: CfgNode, recorded: str) -> CfgNode:
    """``cfg`` with what a run draws and counts itself when it begins: a seed of -1, empty frequencies.

    ``recorded`` is the run's own configuration, as YAML.
    """
    run, cfg = dict(by_key(CfgNode.load_cfg(recorded))), cfg.clone()
    cfg.defrost()
    if cfg.SEED < 0:
        cfg.SEED = run.get("SEED", cfg.SEED)
    return cfg


class RunFolder:
    """The folder that holds a run's files, OUTPUT_DIR."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._descriptor: int | None = None

    def run_files(self) -> list[str]:
        """Names of the files that a new run would overwrite, or mix with its own."""
        if not self.path.is_dir():
            return []
        names = sorted(entry.name for entry in self.path.iterdir())
        return [
            name
            for name in names
            if name in _RUN_FILES or name.startswith((_LOG, _EVENTS)) or name.endswith(".pth")
        ]

    def check_new(self, cfg: CfgNode) -> None:
        """See that a new run would overwrite nothing; InputError: it would, or the folder cannot be one.

        What Detectron2's ``default_setup`` has just written is no run: logs and this configuration.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"OUTPUT_DIR {self.path} is a file: choose another OUTPUT_DIR")
        files = self.run_files()
        just_set_up = all(name.startswith(("config.yaml", _LOG)) for name in files)
        if files and not (just_set_up and self._has_config(cfg)):
            raise InputError(
                f"{self.path} holds a run already ({', '.join(files[:4])}"
                + (", ..." if len(files) > 4 else "")
                + "): continue it with --resume, or choose another OUTPUT_DIR"
            )

    def _has_config(self, cfg: CfgNode) -> bool:
        """Whether config.yaml is ``cfg``, but for what was settled since."""
        try:
            recorded = self.recorded_config()
        except InputError:
            return False
        if recorded is None:
            return False
        begun = settled(CfgNode.load_cfg(recorded), cfg.dump())
        return yaml.safe_load(begun.dump()) == yaml.safe_load(cfg.dump())

    def recorded_config(self) -> str | None:
        """The configuration of the run here, as YAML; None: there is none. InputError: it is damaged."""
        path = self.path / "config.yaml"
        if not path.exists():
            return None
        try:
            text = path.read_text()
            if isinstance(yaml.safe_load(text), dict):
                return text
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            pass
        raise InputError(f"{path} is no configuration of a run: choose another OUTPUT_DIR")

    def begin(self, cfg: CfgNode, start_iter: int) -> None:
        """Make the folder this run's: nothing before has written to it.

        Takes a lock, which :meth:`end` releases, deletes the unfinished files of a killed process,
        forgets the metrics from ``start_iter`` on, which are about to be written again, and writes
        config.yaml and starts.json. InputError: another process is training there, or the folder cannot
        be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDONLY)
            self._lock()
            for path in unfinished_files(self.path):
                path.unlink()
                logger.info("Removed %s, which a killed process left", path.name)
            self._forget_metrics(start_iter)
            write_atomically(self.path / "config.yaml", cfg.dump().encode())
            record_start(self.path, start_iter)
        except OSError as error:
            raise InputError(
                f"OUTPUT_DIR {self.path} cannot be written to ({error}): choose another one"
            ) from error

    def end(self) -> None:
        """Release the lock, if this run has it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self) -> None:
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
        """The lines of metrics.json; a line that a kill cut off, or that is none, is left out."""
        return [line for line in map(_metrics, self._metrics_lines()) if line is not None]

    def _metrics_lines(self) -> list[str]:
        path = self.path / "metrics.json"
        return path.read_text(errors="replace").splitlines() if path.is_file() else []

    def _forget_metrics(self, start_iter: int) -> None:
        lines = self._metrics_lines()
        if any(_metrics(line) is None for line in lines[:-1]) or (lines and start_iter == 0):
            former = free_path(self.path / "metrics.json")
            shutil.copyfile(self.path / "metrics.json", former)
            logger.warning("%s is what metrics.json held before", former)
        self._write_metrics([line for line in self.metrics() if line["iteration"] < start_iter])

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


def _metrics(line: str) -> dict | None:
    """A line of metrics.json; None where it is another text."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_metrics = isinstance(content, dict) and isinstance(content.get("iteration"), int)
    return content if is_metrics else None
