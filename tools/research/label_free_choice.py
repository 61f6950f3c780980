#!/usr/bin/env python3
"""How good the choice of a model without target labels is: a study's runs, by every label-free score.

    tools/research/label_free_choice.py docs/study/demo.yaml [--leave-out "target labels"]

The runs of the study (tools/research/study.py) must have been made with TEST.EVAL_PERIOD above 0. Four
kinds of groups to choose one model from:

    iterations   the evaluated checkpoints of a run
    seeds        the last checkpoints of a row
    settings     the last checkpoints of a seed
    all          all checkpoints of all runs

For each score: Spearman's rank correlation with the test set's mIoU, the regret (mIoU of the group's
best minus mIoU of the chosen one), mean and worst over groups, and how many of the chosen models are in
the worst quarter of their group, or its worst one. "last" takes the last checkpoint, or of several
runs the first run's. The vote of `ensemble_agreement` is that of the whole group.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pppc.arguments import ToolParser
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError, run_tool
from pppc.evaluation.selection import SCORES, EnsembleAgreement, vote
from pppc.files import user_path
from scipy.stats import spearmanr
from study import Study
from study_run import Run
from tabulate import tabulate

PREFIX = "selection/"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that was evaluated.

    Attributes:
        row, seed, iteration: of it.
        miou: on the test set, in percent.
        scores: by their names; what is better is higher. None where the network has none.
        classes: the student's and the teacher's, of drawn target pixels, ``(1 or 2, I, P)`` uint8.
    """

    row: str
    seed: int
    iteration: int
    miou: float
    scores: dict[str, float | None]
    classes: torch.Tensor


def read_candidates(run: Run) -> list[Candidate]:
    """The evaluated checkpoints of a run, by iteration; none of a run that is not finished."""
    if not run.weights.is_file():
        return []
    lines = [entry for entry in RunFolder(run.output).metrics() if PREFIX + "odd_classes" in entry]
    with np.load(run.output / "selection.npz") as found:
        parts = torch.from_numpy(found["classes"]).split(found["voices"].tolist())
        classes = dict(zip(found["iterations"].tolist(), parts))
    candidates = []
    for line in lines:
        known = {name: line.get(PREFIX + name) for name in SCORES}
        candidates.append(
            Candidate(
                run.row,
                run.seed,
                line["iteration"],
                line["sem_seg/mIoU"],
                {name: v if v is None else SCORES[name].sign * v for name, v in known.items()},
                classes[line["iteration"]],
            )
        )
    return candidates


def groups(candidates: Sequence[Candidate]) -> dict[str, list[list[Candidate]]]:
    """By kind, the groups of which one model is to be chosen."""

    def by(key: Callable[[Candidate], object], among: Iterable[Candidate]) -> list[list[Candidate]]:
        found: dict[object, list[Candidate]] = {}
        for one in among:
            found.setdefault(key(one), []).append(one)
        return [group for group in found.values() if len(group) > 1]

    runs = by(lambda one: (one.row, one.seed), candidates)
    last = [run[-1] for run in runs]
    return {
        "iterations": runs,
        "seeds": by(lambda one: one.row, last),
        "settings": by(lambda one: one.seed, last),
        "all": [list(candidates)],
    }


def values(group: Sequence[Candidate], num_classes: int) -> dict[str, list[float] | None]:
    """What each way of choosing thinks of the group's models, higher is better; None: it has no say."""
    voted = vote(torch.cat([one.classes for one in group]), num_classes)[None]
    agreement = [EnsembleAgreement.of(one.classes[0], voted, num_classes) for one in group]
    ways: dict[str, list] = {"last": [float(one.iteration) for one in group]}
    for name in SCORES:
        scores = [one.scores[name] for one in group]
        ways[name] = agreement if name == EnsembleAgreement.name else scores
    return {way: None if None in scores else scores for way, scores in ways.items()}


def judge(kind: Sequence[list[Candidate]], num_classes: int) -> list[list[str]]:
    """Of groups of one kind the table's rows, a way of choosing each."""
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for group in kind:
        true = np.array([one.miou for one in group])
        for way, scores in values(group, num_classes).items():
            if scores is None:
                continue
            chosen = true[int(np.argmax(scores))]
            better = int((true > chosen).sum())
            varied = len(set(scores)) > 1 and len(set(true)) > 1
            correlation = float(spearmanr(scores, true)[0]) if varied else np.nan
            in_worst = better >= len(group) - max(1, len(group) // 4)
            result = (correlation, float(true.max() - chosen), in_worst)
            found.setdefault(way, []).append(result)
    table = []
    for way, results in found.items():
        correlations, regrets, worst = map(np.array, zip(*results))
        known = correlations[~np.isnan(correlations)]
        table.append(
            [
                way,
                f"{known.mean():+.2f}" if len(known) else "",
                f"{regrets.mean():.1f}",
                f"{regrets.max():.1f}",
                f"{worst.sum()} of {len(results)}",
            ]
        )
    return table


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("studies", nargs="+", help="YAML files of studies; each is told of apart")
    parser.add_argument("--output", default="output/study", help="folder of the runs")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="ROW",
                        help="rows that are no candidates, such as the ceiling")  # fmt: skip
    args = parser.parse_args()
    for path in args.studies:
        study = Study(Path(user_path(path, "the study")), Path(user_path(args.output, "--output")))
        rows = {row: runs for row, runs in study.rows.items() if row not in args.leave_out}
        found = [read_candidates(run) for runs in rows.values() for run in runs]
        candidates = [one for of_a_run in found for one in of_a_run]
        if max(map(len, found)) < 2:
            raise InputError(
                f"{args.output} holds no run of {path} that was evaluated twice or more: run "
                "tools/research/study.py on it, with TEST.EVAL_PERIOD above 0 in its opts"
            )
        num_classes = 1 + max(int(one.classes.max()) for one in candidates)
        made = sum(map(bool, found))
        print(f"## {path}: {len(candidates)} checkpoints of {made} of {len(found)} runs\n")
        for kind, members in groups(candidates).items():
            headers = [kind, "Spearman", "mean regret", "worst regret", "in the worst quarter"]
            table = judge(members, num_classes)
            print(tabulate(table, headers, tablefmt="pipe", disable_numparse=True), end="\n\n")


if __name__ == "__main__":
    run_tool(main)
