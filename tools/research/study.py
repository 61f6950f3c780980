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

Every finished run leaves a small JSON in the folder beside the file that has its name; a run is
missing where there is none, or where it was made with other settings than the row has now. The data
sets are found through DETECTRON2_DATASETS. Stopped, the study goes on where it was. Run it from the
repository's root. Each GPU trains one run at a time; without a GPU each core does (--jobs).
"""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

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
class Run:
    """One training of a study."""

    row: str
    seed: int
    config: str
    opts: tuple[str, ...]
    result: Path
    output: Path

    def settings(self) -> dict[str, str]:
        """What the run computes: every setting in use that differs from PPPC's defaults, by key."""
        cfg, defaults = pppc.load_config(self.config, self.opts), get_cfg()
        pppc.add_pppc_config(defaults)
        default_values = dict(by_key(defaults))
        changed = {
            key: str(value)
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
    def missing(self) -> bool:
        result = self.load()
        return result is None or not result["current"]

    @property
    def weights(self) -> Path:
        """The final checkpoint."""
        return self.output / "model_final.pth"

    def train(self, gpu: str | None) -> None:
        """Train, or go on, on a GPU as CUDA_VISIBLE_DEVICES names it, and write the result.

        TrainingFailed: its log is in the run's folder.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-W", "ignore", str(REPOSITORY / "tools/train_net.py"), "--resume",
            "--config-file", self.config, "OUTPUT_DIR", str(self.output),
            "SEED", str(self.seed), "TEST.REPORT_IMAGES", "0", *self.opts,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        commit = code_commit()
        with open(self.output / "study.log", "a") as log:
            run = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        if run.returncode:
            *_, last = ("", *Path(log.name).read_text(errors="replace").splitlines())
            raise TrainingFailed(
                f"{self.row}, seed {self.seed} ended with status {run.returncode}. {log.name} ends: "
                f"{last}"
            )
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
            **{
                key.removeprefix("sem_seg/"): round(value, 3)
                for key, value in sorted(last.items())
                if key.startswith(("sem_seg/mIoU", "sem_seg/IoU-"))
            },
        }
        self.result.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.result, (json.dumps(result) + "\n").encode())
        print(f"{self.row}, seed {self.seed}: {result.get('mIoU', 'trained')}", flush=True)


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

        def run(row: str, entry: dict, seed: int, name: str, weights: list[str]) -> Run:
            values = [*opts, *weights, *entry.get("opts", [])]
            return Run(row, seed, entry["config"], tuple(map(str, values)),
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

    def train_missing(self, jobs: int) -> None:
        """Train what is missing, ``jobs`` at a time: the rows with the most seeds first, seed by seed."""
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
        free: Queue[str | None] = Queue()
        gpus = visible_gpus() or [None]
        for number in range(jobs):
            free.put(gpus[number % len(gpus)])

        def train(run: Run) -> None:
            gpu = free.get()
            try:
                run.train(gpu)
            finally:
                free.put(gpu)

        if runs and first and (first.missing or not first.weights.is_file()):
            train(first)
        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(train, run) for run in runs]:
                done.result()

    def report(self) -> str:
        """Target mIoU of every run, in percent, and the paired differences from the reference.

        A star marks runs made with other settings than the row has now.
        """
        results = {row: {run.seed: run.load() for run in runs} for row, runs in self.rows.items()}
        scores = {
            row: {seed: result["mIoU"] for seed, result in by_seed.items() if result}
            for row, by_seed in results.items()
        }
        reference = scores[self.reference]
        table = []
        for row, by_seed in scores.items():
            differences = [
                score - reference[seed] for seed, score in by_seed.items() if seed in reference
            ]
            times = [result["seconds_per_iteration"] for result in results[row].values() if result]
            table.append(
                [
                    row,
                    *(_cell(results[row].get(seed)) for seed in self.seeds),
                    _mean_and_spread(list(by_seed.values())),
                    "" if row == self.reference else _mean_and_spread(differences, "+"),
                    f"{statistics.median(times):.2f}" if times else "",
                ]
            )
        headers = ["row", *(f"seed {seed}" for seed in self.seeds), "mean ± spread",
                   f"minus {self.reference}", "s / iteration"]  # fmt: skip
        return tabulate(table, headers=headers, tablefmt="pipe", disable_numparse=True)


def file_name(row: str) -> str:
    """With which the names of a row's files begin."""
    return row.lower().replace(" ", "-")


def visible_gpus() -> list[str]:
    """The GPUs that trainings may use, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


# The keys of a study, and of its first run and rows, with the kinds of their values.
OF_A_STUDY = {"seeds": list, "reference": str, "rows": dict, "opts": list, "pretraining": dict}
OF_A_RUN = {"config": str, "opts": list, "seeds": list}


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
    check("reference", content["reference"] in content["rows"])
    names = [file_name(str(row)) for row in content["rows"]]
    check("rows: a name, without /, whose files are no other row's,",
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
    parser.add_argument("--jobs", type=whole_number(1), help="trainings at a time: the number of "
                        "GPUs or, without one, of cores, if it is not given")  # fmt: skip
    args = parser.parse_args()
    study = Study(
        Path(user_path(args.study, "the study")), Path(user_path(args.output, "--output"))
    )
    if not args.report:
        try:
            study.train_missing(args.jobs or len(visible_gpus()) or os.cpu_count())
        except TrainingFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(study.report())
    return 0


if __name__ == "__main__":
    run_tool(main)
