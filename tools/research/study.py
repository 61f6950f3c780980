#!/usr/bin/env python3
"""Compare methods over seeds: run what is missing, several at a time, and tabulate everything.

    tools/research/study.py docs/study/FILE.yaml              run what is missing, then print the table
    tools/research/study.py docs/study/FILE.yaml --report     only print the table

A study is a YAML file:

    seeds: [1, 2, 3]
    reference: DACS            # the row that the others are compared with, seed by seed
    opts: [VIS_PERIOD, 0]      # KEY, VALUE, ... of all rows
    pretraining:               # optional: a first run; all others start from its final weights
      config: configs/demo_gta_to_cityscapes_source_only.yaml
      opts: [SOLVER.MAX_ITER, 4000]
    rows:
      DACS:
        config: configs/demo_gta_to_cityscapes_dacs.yaml
        opts: []               # optional, as are "seeds" of a row
    evaluations:               # optional: how else each run's model is tested
      without balance:
        opts: [PPPC.CLASS_BALANCE.PREDICTION, 0.0]
      chosen without labels:
        weights: model_selected.pth    # of the run's folder; model_final.pth, if it is not given

Every finished run leaves a small JSON in the folder beside the file that has its name; a run is
missing where there is none, or where it was made with other settings than the row has now. The data
sets are found through DETECTRON2_DATASETS. Stopped, the study goes on where it was. Run it from the
repository's root. Each GPU trains one run at a time, without a GPU each core does; --jobs says how many, and
several runs share a GPU.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue

import numpy as np
import pppc
import torch
from detectron2.config import get_cfg
from pppc.arguments import ToolParser, whole_number
from pppc.config.defaults import by_key
from pppc.engine.environment import code_commit
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError, run_tool
from pppc.files import read_yaml, user_path, write_atomically
from tabulate import tabulate

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
            name for name, asked in self.evaluations.items() if not evaluated(result, name, asked)
        ]

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


class Study:
    """The runs, in a folder ``output``, that a study's file asks for.

    InputError: there is no such file, it is no study, or the configuration of a row is wrong.
    """

    def __init__(self, path: Path, output: Path):
        content = _read_study(path)
        self.seeds: list[int] = content["seeds"]
        self.reference: str = content["reference"]
        folder, output = path.with_suffix(""), output / path.stem
        opts = content.get("opts", [])
        self.evaluations = {
            name: {
                "weights": entry.get("weights", "model_final.pth"),
                "opts": list(map(str, entry.get("opts", []))),
            }
            for name, entry in content.get("evaluations", {}).items()
        }

        def run(row: str, entry: dict, seed: int, name: str, weights: list[str]) -> Run:
            values = [*opts, *weights, *entry.get("opts", [])]
            evaluations = {} if row == "pretraining" else self.evaluations
            return Run(row, seed, entry["config"], tuple(map(str, values)), evaluations,
                       folder / f"{name}.json", output / name)  # fmt: skip

        self.pretraining, weights = None, []
        if entry := content.get("pretraining"):
            self.pretraining = run("pretraining", entry, self.seeds[0], "pretraining", [])
            weights = ["MODEL.WEIGHTS", str(self.pretraining.weights)]
        self.rows = {
            row: [
                run(row, entry, seed, f"{file_name(row)}-{seed}", weights)
                for seed in entry.get("seeds", self.seeds)
            ]
            for row, entry in content["rows"].items()
        }
        for row, (first, *_) in self.rows.items():
            try:
                tests = pppc.load_config(first.config, first.opts).DATASETS.TEST
            except InputError as error:
                raise InputError(f"{path}: row {row}: {error}") from error
            if len(tests) != 1:
                raise InputError(
                    f"{path}: row {row}: DATASETS.TEST is {tests}: give one test set, by which rows "
                    "are compared"
                )

    def train_missing(self, devices: list[Device]) -> None:
        """Train what is missing, one run on each device: the rows with the most seeds first, seed by seed.

        TrainingFailed: one of them; those that have begun are brought to their end.
        """
        missing = [
            (-len(runs), self.seeds.index(run.seed), run)
            for runs in self.rows.values()
            for run in runs
            if run.missing
        ]
        runs = [run for *_, run in sorted(missing, key=lambda entry: entry[:2])]
        print(f"{len(runs)} runs are missing", flush=True)
        # The results are kept with the code, but the weights may be on another machine.
        first = self.pretraining
        free: Queue[Device] = Queue()
        for device in devices:
            free.put(device)

        def train(run: Run) -> None:
            device = free.get()
            try:
                run.complete(device)
            finally:
                free.put(device)

        if runs and first and (first.missing or not first.weights.is_file()):
            train(first)
        with ThreadPoolExecutor(len(devices)) as pool:
            try:
                for done in as_completed([pool.submit(train, run) for run in runs]):
                    done.result()
            except TrainingFailed:
                pool.shutdown(cancel_futures=True)
                raise

    def report(self) -> str:
        """Target mIoU of every run, in percent, and the paired differences from the reference.

        A star marks runs made with other settings than the row has now. A table for each evaluation
        follows. Beside them the mean ratio of a run's last tenth of losses to the tenth before: near 1
        they are flat.
        """
        results = {
            row: {run.seed: result for run in runs if (result := run.load())}
            for row, runs in self.rows.items()
        }
        tables = [self._table(results)]
        for name, asked in self.evaluations.items():
            found = {
                row: {
                    seed: result | result["evaluations"][name]
                    for seed, result in by_seed.items()
                    if evaluated(result, name, asked)
                }
                for row, by_seed in results.items()
            }
            tables.append(f"{name}:\n\n{self._table(found)}")
        return "\n\n".join(tables)

    def _table(self, results: Mapping[str, Mapping[int, dict]]) -> str:
        """Of results by row and seed."""
        reference = results[self.reference]
        table = []
        for row, by_seed in results.items():
            differences = [
                result["mIoU"] - reference[seed]["mIoU"]
                for seed, result in by_seed.items()
                if seed in reference
            ]
            times = [result["seconds_per_iteration"] for result in by_seed.values()]
            losses = [result.get("losses", []) for result in by_seed.values()]
            flatness = [of_run[-1] / of_run[-2] for of_run in losses if len(of_run) > 1]
            table.append(
                [
                    row,
                    *(_cell(by_seed.get(seed)) for seed in self.seeds),
                    _mean_and_spread([result["mIoU"] for result in by_seed.values()]),
                    "" if row == self.reference else _mean_and_spread(differences, "+"),
                    f"{statistics.mean(flatness):.2f}" if flatness else "",
                    f"{statistics.median(times):.2f}" if times else "",
                ]
            )
        headers = ["row", *(f"seed {seed}" for seed in self.seeds), "mean ± spread",
                   f"minus {self.reference}", "loss, last tenth / before", "s / iteration"]  # fmt: skip
        return tabulate(table, headers=headers, tablefmt="pipe", disable_numparse=True)


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


# The keys of a study, of its first run and rows, and of evaluations, with the kinds of their values.
OF_A_STUDY = {"seeds": list, "reference": str, "rows": dict, "opts": list, "pretraining": dict,
              "evaluations": dict}  # fmt: skip
OF_A_RUN = {"config": str, "opts": list, "seeds": list}
OF_AN_EVALUATION = {"weights": str, "opts": list}


def _read_study(path: Path) -> dict:
    """A study's file; InputError: it can't be read, or is no study."""
    content = read_yaml(str(path), str(path))

    def check(where: str, right: bool) -> None:
        if not right:
            raise InputError(
                f"{path}: {where} is missing, unknown or of a wrong kind: "
                "tools/research/study.py --help shows a study"
            )

    def check_keys(entry: object, where: str, known: dict[str, type], *needed: str) -> None:
        check(where or "all of it", isinstance(entry, dict))
        for key in {*needed, *entry}:
            check(where + str(key), key in known and isinstance(entry.get(key), known[key]))

    check_keys(content, "", OF_A_STUDY, "seeds", "reference", "rows")
    runs = {f"rows.{row}.": entry for row, entry in content["rows"].items()}
    if "pretraining" in content:
        runs["pretraining."] = content["pretraining"]
    for where, entry in runs.items():
        check_keys(entry, where, OF_A_RUN, "config")
        check(f"{where}seeds", set(entry.get("seeds", ())) <= set(content["seeds"]))
    for name, entry in content.get("evaluations", {}).items():
        check_keys(entry, f"evaluations.{name}.", OF_AN_EVALUATION)
    check("reference", content["reference"] in content["rows"])
    for section in ("rows", "evaluations"):
        names = [file_name(str(name)) for name in content.get(section, {})]
        check(f"{section}: a name, without /, whose files are no other one's,",
              len(set(names)) == len(names) and "/" not in "".join(names))  # fmt: skip
    return content


def _cell(result: dict | None) -> str:
    return "" if result is None else f"{result['mIoU']:.1f}" + ("" if result["current"] else " *")


def _mean_and_spread(values: list[float], sign: str = "") -> str:
    """Mean and the standard deviation over seeds."""
    if len(values) < 2:
        return "".join(f"{value:{sign}.1f}" for value in values)
    return f"{statistics.mean(values):{sign}.1f} ± {statistics.stdev(values):.1f}"


def main() -> int:
    parser = ToolParser(__doc__)
    parser.add_argument("study", help="the YAML file")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--output", default="output/study", help="folder of the runs")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="of the trainings: a GPU if there is one"
    )
    parser.add_argument("--jobs", type=whole_number(1), help="trainings at a time: the number of "
                        "GPUs or, without one, of cores, if it is not given")  # fmt: skip
    args = parser.parse_args()
    study = Study(
        Path(user_path(args.study, "the study")), Path(user_path(args.output, "--output"))
    )
    if not args.report:
        try:
            study.train_missing(devices(args.device, args.jobs))
        except TrainingFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(study.report())
    return 0


if __name__ == "__main__":
    run_tool(main)
