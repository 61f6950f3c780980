"""What the folders of runs tell without a model: settings, metrics, alarms, and the selected checkpoint."""

import json
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from ..config.files import flat_settings
from ..engine.alarms import ALARMS
from ..engine.environment import STARTS
from ..engine.run_folder import RunFolder
from ..errors import InputError, printable
from ..evaluation.mean_iou import class_ious
from ..files import user_path

#: Settings in which runs differ that are repetitions of each other.
OF_REPETITIONS = ("SEED", "OUTPUT_DIR", "MODEL.WEIGHTS", "TEST.SELECTION.SOURCE_MODEL")


@dataclass(frozen=True)
class Alarm:
    """An alarm that sounded.

    Attributes:
        name: in ``ALARMS``.
        first, last: iterations, counted from 1, between which it did, as metrics.json has them.
        over: whether it was silent at the end.
        words: what it said; "" where the log is not there.
    """

    name: str
    first: int
    last: int
    over: bool
    words: str

    @property
    def advice(self) -> str:
        return ALARMS[self.name]


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        path: of the folder.
        model: that it is about, as ``pppc.load`` takes it: the folder, or a checkpoint in it.
        name: that tells it from the others.
    """

    path: Path
    model: Path
    name: str

    @cached_property
    def settings(self) -> dict[str, object]:
        """Keys and values of its config.yaml."""
        recorded = RunFolder(self.path).recorded_config()
        if recorded is None:
            raise InputError(f"{self.path} holds no config.yaml: give the folder of a run")
        return dict(flat_settings(yaml.safe_load(recorded)))

    @cached_property
    def metrics(self) -> list[dict]:
        """The lines of its metrics.json."""
        return RunFolder(self.path).metrics()

    @property
    def is_source_only(self) -> bool:
        return not self.settings.get("PPPC.SELF_TRAINING.ENABLED", True)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Iterations, counted from 1, and the values of a key of metrics.json."""
        lines = [line for line in self.metrics if line.get(key) is not None]
        return [line["iteration"] + 1 for line in lines], [line[key] for line in lines]

    def last(self, key: str) -> float | None:
        """The last value of a key of metrics.json; None: it has none."""
        return (self.series(key)[1] or [None])[-1]

    @cached_property
    def evaluations(self) -> list[dict]:
        """The lines of metrics.json that hold label-free scores or an IoU."""
        return [
            line
            for line in self.metrics
            if class_ious(line) or any(key.startswith("selection/") for key in line)
        ]

    @cached_property
    def ious(self) -> dict[str, float]:
        """The last IoU of each class, and "mean", in percent.

        {} where it was tested on no labels, or the run is about a checkpoint of its choice.
        """
        if self.model != self.path:
            return {}
        found = [ious for line in self.metrics if (ious := class_ious(line))]
        return found[-1] if found else {}

    @property
    def selected(self) -> int | None:
        """The iteration of model_selected.pth, counted from 1; 0: the source-only model; None: no choice."""
        iteration = self.last("selection/iteration")
        return None if iteration is None else int(iteration) + 1

    @cached_property
    def alarms(self) -> list[Alarm]:
        """Those that sounded, the first one first."""
        found = []
        for name in ALARMS:
            iterations, values = self.series(f"alarm/{name}")
            if sounding := [i for i, value in zip(iterations, values) if value]:
                found.append(
                    Alarm(name, sounding[0], sounding[-1], not values[-1], self._words(name))
                )
        return sorted(found, key=lambda alarm: alarm.first)

    def _words(self, name: str) -> str:
        """What an alarm said last."""
        said = re.findall(rf"Alarm {name} in \w+: (.*)", self._log)
        return said[-1].removesuffix(ALARMS[name]).strip() if said else ""

    @cached_property
    def _log(self) -> str:
        path = self.path / "log.txt"
        return path.read_text(errors="replace") if path.is_file() else ""

    @cached_property
    def starts(self) -> list[dict]:
        """What was recorded each time it was started, see :func:`pppc.engine.environment.record_start`."""
        path = self.path / STARTS
        try:
            return json.loads(path.read_text()) if path.is_file() else []
        except ValueError:
            return []

    @property
    def seconds(self) -> float | None:
        """That its training steps took, by the times in metrics.json."""
        iterations, times = self.series("time")
        steps = [after - before for before, after in zip([0, *iterations], iterations)]
        return sum(step * time for step, time in zip(steps, times)) if times else None


def read_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """Runs, named by what tells their paths apart.

    Args:
        paths: of runs' folders, of checkpoints in them, or of an output of ``pppc adapt``, which stands for
            its adapted and its source-only run.

    Raises:
        InputError: one is none of these.
    """
    models = [
        model for path in paths for model in _models(Path(user_path(os.fspath(path), "the run")))
    ]
    folders = [model if model.is_dir() else model.parent for model in models]
    common = os.path.commonpath([folder.resolve().parent for folder in folders])
    runs = []
    for folder, model in zip(folders, models):
        name = os.path.relpath(folder.resolve(), common)
        name = printable(name if model == folder else os.path.join(name, model.name))
        if name in [run.name for run in runs]:
            raise InputError(f"{model} is given twice")
        run = Run(folder, model, name)
        assert run.settings  # reading them says what is wrong with it
        runs.append(run)
    return runs


def _models(path: Path) -> Iterator[Path]:
    of_adapt = [
        path / name for name in ("adapted", "source_only") if (path / "plan.json").is_file()
    ]
    if of_adapt:
        yield from (folder for folder in of_adapt if (folder / "config.yaml").is_file())
    elif path.exists():
        yield path.parent if path.name == "model_final.pth" else path
    else:
        raise InputError(
            f"{path} is not there: give the folder of a run, or one of its checkpoints"
        )


def source_only_of(run: Run, runs: Sequence[Run]) -> Run | None:
    """The source-only run to compare with: one of ``runs``, or that which the run itself names.

    None: there is none, or ``run`` is source-only itself.
    """
    if run.is_source_only:
        return None
    named = [run.settings.get(key) for key in ("TEST.SELECTION.SOURCE_MODEL", "MODEL.WEIGHTS")]
    for path in filter(None, named):
        with suppress(InputError):  # it may be an encoder's weights, or be gone
            runs = [*runs, *read_runs([run.model, str(path)])[1:]]
    return next((one for one in runs if one.is_source_only), None)


def repetitions(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seed alone, together."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {k: v for k, v in sorted(run.settings.items()) if k not in OF_REPETITIONS}
        groups.setdefault(repr(settings), []).append(run)
    return list(groups.values())


def mean_and_spread(values: Sequence[float]) -> str:
    """The mean, and of several values the standard deviation.

    Examples:
        >>> mean_and_spread([1.0, 2.0, 3.0])
        '2.0 ± 1.0'
    """
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
