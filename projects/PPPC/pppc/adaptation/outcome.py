"""What came of an adaptation: the two models beside each other, and which of them is kept."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.evaluation.testing import flatten_results_dict

from ..config import load_config
from ..data.catalog import list_records
from ..data.data_file import DataFile
from ..engine import Trainer
from ..engine.run_folder import RunFolder
from ..evaluation.mean_iou import class_ious
from ..files import write_atomically
from ..model_folder import save_model_folder
from ..prediction import Predictor, load
from ..report import try_report
from . import comparison

COMPARED = 100  # target images
PICTURES = 6
RARE = 0.0005  # share of the target's pixels


def conclude(output: Path, data: DataFile) -> str:
    """Compare the two models, draw them, and keep the better one; returns what to tell of it."""
    adapted = load_config(output / "adapted.yaml")
    source_only = load_config(output / "source_only.yaml", ["MODEL.WEIGHTS", adapted.MODEL.WEIGHTS])
    metrics = RunFolder(output / "adapted").metrics()
    checkpoint = ""
    if not data.val:
        score = adapted.TEST.SELECTION.SCORE if adapted.TEST.SELECTION.IMAGES else None
        best, why, checkpoint = choose_without_labels(metrics, score)
    models = {
        "source-only": Predictor(source_only),
        "adapted": load(output / "adapted" / checkpoint),
    }
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
            if not (output / "source_only/metrics.json").is_file()  # it was given
            else _last_metrics(output / "source_only", "sem_seg/mIoU"),
            "adapted": _last_metrics(output / "adapted", "sem_seg/mIoU"),
        }
        columns = {name: class_ious(found) for name, found in results.items()}
        best, why = choose_by_labels({name: found["mean"] for name, found in columns.items()})
        if "sem_seg/mIoU-low" in results[best]:  # of one test set
            low, high = (results[best][f"sem_seg/mIoU-{end}"] for end in ("low", "high"))
            why += f"; in 95 % of draws of val's images it is from {low:.1f} to {high:.1f}"
    else:
        title = "Share of the target's pixels, in percent"
        columns = {
            name: {one: 100 * share for one, share in zip(models[name].names, found)}
            for name, found in compared.shares.items()
        }
    text = (
        f"{title}\n\n{comparison.table(columns, names)}\n\n"
        f"The two differ in {statistics.mean(compared.differences.values()):.1%} of the pixels of "
        f"{len(images)} target images. Pictures of those in which they differ most: {pictures[0].parent}\n"
    )
    if unseen := [
        name for name, *found in zip(names, *compared.shares.values()) if max(found) < RARE
    ]:
        text += f"Neither finds {', '.join(unseen)} in the target's images: more --time may help.\n"
    alarms = {key[6:] for line in metrics for key in line if key.startswith("alarm/") and line[key]}
    if alarms:
        text += (
            f"While it was adapted, alarms spoke: {', '.join(sorted(alarms))}. What each one means, and "
            f"what to try: {output / 'adapted/log.txt'}\n"
        )
    text += f"Class by class, in pictures: {output / 'report.html'}\n"
    text += f"{output / 'model'} is the {best} model: {why}.\n"
    write_atomically(output / "results.md", text.encode())
    try_report([output / "adapted" / checkpoint], output=output / "report.html")
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
    metrics: Sequence[Mapping[str, float]], score: str | None
) -> tuple[str, str, str]:
    """What the adapted run has chosen of the source-only model and its own checkpoints.

    Args:
        metrics: lines of its metrics.json.
        score: by which it has (TEST.SELECTION.SCORE); None: it has not.

    Returns:
        "source-only" or "adapted", why, and the name of the adapted checkpoint to compare with; "": the
        final one.

    Examples:
        >>> lines = [{"iteration": 9, "selection/iteration": -1, "selection/odd_classes": 2}]
        >>> choose_without_labels(lines, "entropy")[0]
        'source-only'
    """
    evaluated = [line for line in metrics if "selection/iteration" in line]
    if score is None or not evaluated:
        return "adapted", "without val and TEST.SELECTION.IMAGES nothing compares the two", ""
    chosen = int(evaluated[-1]["selection/iteration"])
    why = "without val the label-free choice decides, and "
    if chosen >= 0:
        why += f"of source-only and {len(evaluated)} adapted ones that after {chosen + 1} "
        return "adapted", f"{why}iterations has the best {score}", "model_selected.pth"
    if all(line["selection/odd_classes"] for line in evaluated):
        return "source-only", f"{why}each adapted checkpoint has lost a class or spreads one", ""
    return "source-only", f"{why}no adapted checkpoint has a better {score}", ""


def _last_metrics(run: Path, ending: str) -> dict[str, float]:
    """Of a run the last line of metrics.json that has a key with this ending; {} without one."""
    found = [line for line in RunFolder(run).metrics() if any(key.endswith(ending) for key in line)]
    return found[-1] if found else {}


def _test(model: Predictor) -> dict[str, float]:
    return flatten_results_dict(Trainer.test(model.cfg, model.model))
