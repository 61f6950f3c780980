"""What came of an adaptation: the two models beside each other, and which of them is kept."""

import argparse
import math
import re
import statistics
from collections.abc import Mapping
from pathlib import Path

from detectron2.evaluation.testing import flatten_results_dict

from ..config import load_config
from ..data.catalog import list_records
from ..data.data_file import DataFile
from ..engine import Trainer
from ..engine.run_folder import RunFolder
from ..files import write_atomically
from ..model_folder import save_model_folder
from ..prediction import Predictor, load
from . import comparison

COMPARED = 100  # target images
PICTURES = 6
RARE = 0.0005  # share of the target's pixels
SCORE = "information_maximization_source"  # it compares runs; others compare checkpoints of one


def conclude(output: Path, args: argparse.Namespace, data: DataFile) -> str:
    """Compare the two models, draw them, and keep the better one; returns what to tell of it."""
    source_only = load_config(
        output / "source_only.yaml",
        ["MODEL.WEIGHTS", args.start or str(output / "source_only/model_final.pth")],
    )
    models = {"source-only": Predictor(source_only), "adapted": load(output / "adapted")}
    names = models["adapted"].names
    images = [record["file_name"] for name in data.target for record in list_records(name)]
    images = images[:: math.ceil(len(images) / COMPARED)]
    compared = comparison.compare(models, images)
    pictures = comparison.draw(models, compared.most_different(PICTURES), output / "pictures")
    columns: dict[str, dict[str, float]] = {}
    if data.val:
        title = f"IoU on {', '.join(data.val)}, in percent"
        results = {
            "source-only": _test(models["source-only"])
            if args.start
            else _last_metrics(output / "source_only", "sem_seg/mIoU"),
            "adapted": _last_metrics(output / "adapted", "sem_seg/mIoU"),
        }
        columns = {name: _ious(found) for name, found in results.items()}
        best, why = choose_by_labels({name: found["mean"] for name, found in columns.items()})
    else:
        title = "Share of the target's pixels, in percent"
        columns = {
            name: {one: 100 * share for one, share in zip(models[name].names, found)}
            for name, found in compared.shares.items()
        }
        key = f"selection/{SCORE}"
        scores = {
            "source-only": _last_metrics(output / "source_only", key).get(key),
            "adapted": _last_metrics(output / "adapted", key).get(key),
        }
        best, why = choose_without_labels(scores, columns)
    text = (
        f"{title}\n\n{comparison.table(columns, names)}\n\n"
        f"The two differ in {statistics.mean(compared.differences.values()):.1%} of the pixels of "
        f"{len(images)} target images. Pictures of those in which they differ most: {pictures[0].parent}\n"
    )
    if unseen := [
        name for name, *found in zip(names, *compared.shares.values()) if max(found) < RARE
    ]:
        text += f"Neither finds {', '.join(unseen)} in the target's images: more --time may help.\n"
    text += f"{output / 'model'} is the {best} model: {why}.\n"
    write_atomically(output / "results.md", text.encode())
    reached = {f"mIoU on {', '.join(data.val)} (%)": columns[best]["mean"]} if data.val else {}
    save_model_folder(models[best], output / "model", reached)
    return text


def choose_by_labels(means: Mapping[str, float]) -> tuple[str, str]:
    """The model with the higher mIoU, and why.

    Examples:
        >>> choose_by_labels({"source-only": 44.6, "adapted": 40.0})
        ('source-only', 'its mIoU is 44.6, that of the adapted one 40.0')
    """
    best, other = sorted(means, key=lambda name: (means[name], name == "adapted"), reverse=True)
    return best, f"its mIoU is {means[best]:.1f}, that of the {other} one {means[other]:.1f}"


def choose_without_labels(
    scores: Mapping[str, float | None], shares: Mapping[str, Mapping[str, float]]
) -> tuple[str, str]:
    """The adapted model, unless it has lost a class that the source-only one finds, or a lower score.

    Args:
        scores: the label-free score ``SCORE``, the higher the better; None: not known.
        shares: of the target's pixels that each class is predicted for, in percent, by the model's name.

    Examples:
        >>> shares = {"source-only": {"vessel": 8.0}, "adapted": {"vessel": 0.1}}
        >>> choose_without_labels({"source-only": -1.0, "adapted": -0.5}, shares)
        ('source-only', 'the adapted one has lost vessel, and there is no val to tell more')
    """
    before, after = shares["source-only"], shares["adapted"]
    if lost := [
        name for name in before if before[name] >= 0.1 and after[name] < 0.1 * before[name]
    ]:
        return (
            "source-only",
            f"the adapted one has lost {', '.join(lost)}, and there is no val to tell more",
        )
    ours, theirs = scores["adapted"], scores["source-only"]
    if ours is None or theirs is None:
        return (
            "adapted",
            "no class that source-only finds is lost, and there is no val to tell more",
        )
    best, other = ("adapted", "source-only") if ours >= theirs else ("source-only", "adapted")
    return best, (
        f"without val the label-free score {SCORE} decides, {scores[best]:.2f} against "
        f"{scores[other]:.2f} of the {other} one, and no class is lost"
    )


def _last_metrics(run: Path, ending: str) -> dict[str, float]:
    """Of a run the last line of metrics.json that has a key with this ending; {} without one."""
    found = [line for line in RunFolder(run).metrics() if any(key.endswith(ending) for key in line)]
    return found[-1] if found else {}


def _test(model: Predictor) -> dict[str, float]:
    return flatten_results_dict(Trainer.test(model.cfg, model.model))


def _ious(results: Mapping[str, float]) -> dict[str, float]:
    """IoU by class, and their "mean", each the mean over the test sets that have it."""
    found: dict[str, list[float]] = {}
    for key, value in results.items():
        if name := re.search(r"sem_seg/(?:IoU-(.+)|mIoU)$", key):
            found.setdefault(name[1] or "mean", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
