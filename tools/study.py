#!/usr/bin/env python3
"""Compare methods over seeds: run what is missing, one process per core, and tabulate everything.

    tools/study.py docs/study/demo.yaml              run what is missing, then print the table
    tools/study.py docs/study/demo.yaml --report     only print the table

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
repository's root.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pppc
import yaml
from detectron2.config import CfgNode, get_cfg
from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent
# Settings that say where and how a run is made, not what it computes.
CIRCUMSTANCES = ("OUTPUT_DIR", "SEED", "VIS_PERIOD", "MODEL.DEVICE", "VERSION")
# Settings that nothing reads where there is no contrast.
OF_THE_CONTRAST = (
    "PPPC.CONTRAST.", "PPPC.PROTOTYPES.", "PPPC.AMBIGUITY_CROP.", "MODEL.PROBABILISTIC_HEAD.",
)  # fmt: skip


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
        cfg, defaults = get_cfg(), get_cfg()
        for node in (cfg, defaults):
            pppc.add_pppc_config(node)
        cfg.merge_from_file(self.config)
        cfg.merge_from_list(list(self.opts))
        default_values = dict(_flatten(defaults))
        changed = {
            key: str(value)
            for key, value in _flatten(cfg)
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
        result = json.loads(self.result.read_text())
        return result | {"current": result["settings"] == self.settings()}

    @property
    def missing(self) -> bool:
        result = self.load()
        return result is None or not result["current"]

    @property
    def weights(self) -> Path:
        """The final checkpoint."""
        return self.output / "model_final.pth"

    def train(self) -> None:
        """Train, or go on, and write the result.

        Raises:
            FileExistsError: the run's folder holds one of other settings.
            RuntimeError: the training failed; its log is in the run's folder.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        started = self.output / "settings.json"
        if started.exists() and json.loads(started.read_text()) != self.settings():
            raise FileExistsError(f"{self.output} holds a run of other settings: move it away")
        started.write_text(json.dumps(self.settings(), indent=1))
        command = [
            sys.executable, "-W", "ignore", str(REPOSITORY / "tools/train_net.py"), "--resume",
            "--config-file", self.config, "OUTPUT_DIR", str(self.output),
            "SEED", str(self.seed), *self.opts,
        ]  # fmt: skip
        commit = _commit()
        with open(self.output / "study.log", "a") as log:
            status = subprocess.run(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).returncode
        if status:
            raise RuntimeError(f"{self.row}, seed {self.seed} failed: see {log.name}")
        lines = (self.output / "metrics.json").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        *_, last = ({}, *(entry for entry in metrics if "sem_seg/mIoU" in entry))
        result = {
            "row": self.row,
            "seed": self.seed,
            "commit": commit,
            "config": self.config,
            "opts": self.opts,
            "settings": self.settings(),
            "seconds_per_iteration": round(
                statistics.median(entry["time"] for entry in metrics if "time" in entry), 3
            ),
            **{
                key.removeprefix("sem_seg/"): round(value, 3)
                for key, value in sorted(last.items())
                if key.startswith(("sem_seg/mIoU", "sem_seg/IoU-"))
            },
        }
        self.result.parent.mkdir(parents=True, exist_ok=True)
        partial = self.result.with_suffix(".partial")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.replace(self.result)
        print(f"{self.row}, seed {self.seed}: {result.get('mIoU', 'trained')}", flush=True)


class Study:
    """The runs that a study's file asks for.

    Args:
        path: of the YAML file; the configurations it names are relative to the working directory.
        output: folder of the runs.

    Raises:
        FileNotFoundError: there is no such file.
        KeyError: the reference is not a row.
    """

    def __init__(self, path: Path, output: Path):
        content = yaml.safe_load(path.read_text())
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
        if self.reference not in content["rows"]:
            raise KeyError(f"{path}: the reference {self.reference!r} is not one of the rows")
        self.rows = {
            row: [
                run(row, entry, seed, f"{row.lower().replace(' ', '-')}-{seed}", weights)
                for seed in entry.get("seeds", self.seeds)
            ]
            for row, entry in content["rows"].items()
        }

    def train_missing(self, jobs: int) -> None:
        """Train what is missing: the rows with the most seeds first, seed by seed."""
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
        if runs and first and (first.missing or not first.weights.is_file()):
            first.train()
        with ThreadPoolExecutor(jobs) as pool:
            for done in [pool.submit(run.train) for run in runs]:
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


def _flatten(node: CfgNode, prefix: str = ""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _cell(result: dict | None) -> str:
    return "" if result is None else f"{result['mIoU']:.1f}" + ("" if result["current"] else " *")


def _mean_and_spread(values: list[float], sign: str = "") -> str:
    """Mean and the standard deviation over seeds."""
    if len(values) < 2:
        return "".join(f"{value:{sign}.1f}" for value in values)
    return f"{statistics.mean(values):{sign}.1f} ± {statistics.stdev(values):.1f}"


def _commit() -> str:
    """The commit of the code, with a plus sign where files differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "projects", "tools", "configs")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="the YAML file")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--output", type=Path, default=Path("output/study"), help="of the runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trainings at a time")
    args = parser.parse_args()
    try:
        study = Study(args.study, args.output)
        if not args.report:
            study.train_missing(args.jobs)
    except (OSError, KeyError, RuntimeError) as error:
        sys.exit(f"error: {error.args[0] if isinstance(error, KeyError) else error}")
    print(study.report())


if __name__ == "__main__":
    main()
