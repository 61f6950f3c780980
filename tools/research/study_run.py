"""One training of a study, and where it runs."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pppc
import torch
from detectron2.config import get_cfg
from pppc.config.defaults import by_key
from pppc.engine.environment import code_commit
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError
from pppc.files import write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]
# Settings that say where and how a run is made, not what it computes.
CIRCUMSTANCES = (
    "OUTPUT_DIR", "SEED", "VIS_PERIOD", "TEST.REPORT_IMAGES", "MODEL.DEVICE", "VERSION",
)  # fmt: skip
# Settings that nothing reads where there is no contrast.
OF_THE_CONTRAST = (
    "PPPC.CONTRAST.", "PPPC.PROTOTYPES.", "PPPC.AMBIGUITY_CROP.", "MODEL.PROBABILISTIC_HEAD.",
)  # fmt: skip


class TrainingFailed(Exception):
    """A training of a study ended with an error; the message is one line."""


@dataclass(frozen=True)
class Device:
    """Where a training runs: what it is told, and its environment."""

    opts: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training of a study."""

    row: str
    seed: int
    config: str
    opts: tuple[str, ...]
    evaluations: dict[str, dict]
    result: Path
    output: Path

    def settings(self) -> dict[str, str]:
        """What the run computes: every setting in use that differs from PPPC's defaults, by key."""
        cfg, defaults = pppc.load_config(self.config, self.opts), get_cfg()
        pppc.add_pppc_config(defaults)
        default_values = dict(by_key(defaults))
        changed = {
            key: str(value).replace(f"{REPOSITORY}/", "")  # in another clone they are the same
            for key, value in by_key(cfg)
            if value != default_values[key] and key not in CIRCUMSTANCES
        }
        if not cfg.PPPC.CONTRAST.ENABLED:
            changed = {k: v for k, v in changed.items() if not k.startswith(OF_THE_CONTRAST)}
            changed["PPPC.CONTRAST.ENABLED"] = "False"
        if cfg.PPPC.IMAGENET_PROTOTYPES.USE == "never":  # nothing reads the rest
            changed = {k: v for k, v in changed.items() if "IMAGENET_PROTOTYPES" not in k}
        return changed

    def load(self) -> dict | None:
        """The result, with "current": whether its settings are those of today; None: missing."""
        if not self.result.is_file():
            return None
        try:
            result = json.loads(self.result.read_text())
        except ValueError as error:
            raise InputError(f"{self.result} is damaged: remove it") from error
        return result | {"current": result["settings"] == self.settings()}

    @property
    def untrained(self) -> bool:
        result = self.load()
        return result is None or not result["current"]

    @property
    def missing_evaluations(self) -> list[str]:
        result = self.load() or {}
        return [
            name
            for name, asked in self.evaluations.items()
            if not evaluated(result, name, asked) and self._tells_more(asked)
        ]

    def _tells_more(self, asked: Mapping) -> bool:
        """Whether an evaluation differs from the run's own."""
        so_tested = replace(self, opts=(*self.opts, *asked["opts"]))
        return asked["weights"] != self.weights.name or so_tested.settings() != self.settings()

    @property
    def missing(self) -> bool:
        return self.untrained or bool(self.missing_evaluations)

    @property
    def weights(self) -> Path:
        """The final checkpoint."""
        return self.output / "model_final.pth"

    def complete(self, device: Device) -> None:
        """Train, or go on, and evaluate, as far as that is missing; TrainingFailed: the log tells why."""
        if self.untrained or not self.weights.is_file():
            self.train(device)
        for name in self.missing_evaluations:
            self.evaluate(name, device)
        print(f"{self.row}, seed {self.seed}: {self.load().get('mIoU', 'trained')}", flush=True)

    def train(self, device: Device) -> None:
        commit = code_commit()
        self._run_tool(device, "--resume", "OUTPUT_DIR", self.output)
        metrics = RunFolder(self.output).metrics()
        *_, last = ({}, *(entry for entry in metrics if "sem_seg/mIoU" in entry))
        seconds = statistics.median(entry["time"] for entry in metrics if "time" in entry)
        result = {
            "row": self.row,
            "seed": self.seed,
            "commit": commit,
            "config": self.config,
            "opts": self.opts,
            "settings": self.settings(),
            "seconds_per_iteration": round(seconds, 3),
            "losses": loss_by_tenth([e["total_loss"] for e in metrics if "total_loss" in e]),
            **{
                key.removeprefix("sem_seg/"): round(value, 3)
                for key, value in sorted(last.items())
                if key.startswith(("sem_seg/mIoU", "sem_seg/IoU-"))
            },
        }
        self._save(result)

    def evaluate(self, name: str, device: Device) -> None:
        """Test the run's model in another way, and add that to the result."""
        asked, folder = self.evaluations[name], self.output / "evaluations" / file_name(name)
        shutil.rmtree(folder, ignore_errors=True)  # a former one's results would stay beside these
        weights = self.output / asked["weights"]
        self._run_tool(
            device, "--eval-only", "OUTPUT_DIR", folder, "MODEL.WEIGHTS", weights, *asked["opts"]
        )
        found = json.loads((folder / "inference/results.json").read_text())
        result = json.loads(self.result.read_text())
        miou = round(found["sem_seg"]["mIoU"], 3)
        result.setdefault("evaluations", {})[name] = asked | {"mIoU": miou}
        self._save(result)

    def _run_tool(self, device: Device, mode: str, *opts: object) -> None:
        """Run tools/train_net.py on this run's configuration; TrainingFailed: it did not end well."""
        self.output.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-W", "ignore", REPOSITORY / "tools/train_net.py", mode,
            "--config-file", self.config, "SEED", self.seed, "TEST.REPORT_IMAGES", 0,
            *self.opts, *device.opts, *opts,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | device.environment
        with open(self.output / "study.log", "a") as log:
            run = subprocess.run(
                list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        if run.returncode:
            *_, last = ("", *Path(log.name).read_text(errors="replace").splitlines())
            raise TrainingFailed(
                f"{self.row}, seed {self.seed} ended with status {run.returncode}. {log.name} ends: "
                f"{last}"
            )

    def _save(self, result: dict) -> None:
        self.result.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.result, (json.dumps(result) + "\n").encode())


def loss_by_tenth(losses: list[float]) -> list[float]:
    """The mean of each tenth of a run's losses, or each of them where they are fewer than ten."""
    parts = np.array_split(losses, min(10, len(losses)))
    return [round(float(part.mean()), 4) for part in parts]


def evaluated(result: Mapping, name: str, asked: Mapping) -> bool:
    """Whether a run's result has an evaluation as it is asked for today."""
    return asked.items() <= result.get("evaluations", {}).get(name, {}).items()


def file_name(row: str) -> str:
    """With which the names of a row's files begin."""
    return row.lower().replace(" ", "-")


def devices(kind: str | None, jobs: int | None) -> list[Device]:
    """So many at a time, or one for each GPU or, without one, core. Of several GPUs each run sees one."""
    if kind == "cpu" or not (count := torch.cuda.device_count()):
        return [Device(("MODEL.DEVICE", kind or "cpu"))] * (jobs or os.cpu_count())
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",")[:count] if named else [str(number) for number in range(count)]
    return [
        Device(("MODEL.DEVICE", "cuda"), {"CUDA_VISIBLE_DEVICES": gpus[number % count]})
        for number in range(jobs or count)
    ]
