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
    evaluations:               # optional: how else each run's model is tested, where that differs
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

import statistics
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue

import pppc
from pppc.arguments import ToolParser, whole_number
from pppc.errors import InputError, run_tool
from pppc.files import read_yaml, user_path
from study_run import Device, Run, TrainingFailed, devices, evaluated, file_name
from tabulate import tabulate


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
            if any(found.values()):
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
