"""What the page shows: each section's numbers and figures, or a sentence on why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from ..errors import InputError
from ..evaluation.calibration import calibration_error, error_detection, reliability, risk_coverage
from ..evaluation.mean_iou import class_ious, intersection_over_union
from ..prediction import Predictor, load
from . import figures
from .embeddings import TITLES, embed
from .looks import Look, Looks, look
from .provenance import data_sets, differing_settings, what_ran
from .runs import Run, mean_and_spread, repetitions, source_only_of
from .verdict import Verdict, judge

MOST_DIFFERENT, WORST, BEST = 6, 3, 3
CONFUSIONS = 10
CURVE = 101  # points of a risk-coverage curve


@dataclass
class Content:
    """What the template gets, by the sections of the page.

    Attributes:
        run: that the report is about; source_only: what it is compared with; runs: these and the others.
        ious: by the run's name the IoU of each class and "mean", in percent.
        of_looks: whether that is of the images that were looked at, not of whole test sets.
        looks: what the models say of images; None: they were not looked at.
        missing: by section a sentence on what there is not.
        drawn: the figures, by name.
    """

    run: Run
    source_only: Run | None
    runs: list[Run]
    verdict: Verdict
    ious: dict[str, dict[str, float]]
    of_looks: bool
    looks: Looks | None
    missing: dict[str, str]
    most_different: list[Look]
    notable: dict[str, list[Look]]
    worst_first: list[Look]
    classes: list[dict]
    evaluations: list[dict]
    confusions: list[dict]
    trust: list[dict]
    groups: list[dict]
    ran: dict[str, dict[str, str]]
    settings: list[dict]
    data: list[dict]
    drawn: dict[str, Markup] = field(default_factory=dict)

    def numbers(self) -> dict[str, object]:
        """What the page shows as numbers and words, for other programs."""
        looks = self.looks
        return {
            "verdict": vars(self.verdict),
            "runs": {
                one.name: {
                    "source_only": one.is_source_only,
                    "iou": self.ious.get(one.name, one.ious),
                    "selected_iteration": one.selected,
                    "alarms": {
                        alarm.name: {"first": alarm.first, "last": alarm.last, "over": alarm.over}
                        for alarm in one.alarms
                    },
                    "ran": self.ran[one.name],
                }
                for one in self.runs
            },
            "iou_of_the_images_here_alone": self.of_looks,
            "evaluations": self.evaluations,
            "classes": {row["name"]: row["shares"] for row in self.classes},
            "images": {
                one.name: {"iou": one.ious, "difference": one.difference}
                for one in (looks.images if looks else ())
            },
            "confusion": {n: matrix.tolist() for n, matrix in looks.confusion.items()}
            if looks
            else {},
            "trust": self.trust,
            "seeds": self.groups,
            "data": self.data,
            "settings": self.settings,
        }


def gather(runs: list[Run], images: int, embedding: str) -> Content:
    """See :func:`pppc.report.page.write_report`."""
    run = next((one for one in runs if not one.is_source_only), runs[0])
    source_only = source_only_of(run, runs)
    shown = [run] if source_only is None else [run, source_only]
    runs = [*shown, *[one for one in runs if one.path not in [s.path for s in shown]]]
    missing: dict[str, str] = {}
    models: dict[str, Predictor] = {}
    looks, points = None, None
    if images:
        try:
            models = _models(run, source_only, missing)
            looks = look(models, images)
        except (InputError, OSError) as error:
            missing["looks"] = f"No image was looked at: {error}."
    if models and embedding != "none":
        try:
            points = embed(models[run.name], embedding)
        except (InputError, OSError) as error:
            missing["embedding"] = f"There is no picture of the embedding: {error}."
    ious, of_looks = _ious(shown, looks)
    content = Content(
        run,
        source_only,
        runs,
        judge(run, source_only, ious, looks),
        ious,
        of_looks,
        looks,
        missing,
        **_images(looks, run),
        classes=_classes(run, source_only, models, ious, looks),
        evaluations=_evaluations(run),
        confusions=_confusions(looks, run),
        trust=_trust(looks),
        groups=[_group(group) for group in repetitions(runs)],
        ran={one.name: what_ran(one) for one in runs},
        settings=differing_settings(runs),
        data=data_sets(run),
    )
    content.drawn = _drawn(content)
    if points is not None:
        title = f"Embeddings of pixels and prototypes, by {TITLES[embedding]}"
        content.drawn["embedding"] = figures.scatter(points, title, models[run.name].colors)
    return content


def _models(run: Run, source_only: Run | None, missing: dict[str, str]) -> dict[str, Predictor]:
    """The models to compare, source-only first; a sentence in ``missing`` on one that can't be."""
    adapted = load(run.model)
    if source_only is None:
        return {run.name: adapted}
    try:
        before = load(source_only.model, ["MODEL.DEVICE", adapted.cfg.MODEL.DEVICE])
    except InputError as error:
        missing["source_only"] = f"The source-only model can't be loaded: {error}."
        return {run.name: adapted}
    if before.names != adapted.names:
        missing["source_only"] = "The source-only model has other classes, so it is not compared."
        return {run.name: adapted}
    return {source_only.name: before, run.name: adapted}


def _ious(shown: Sequence[Run], looks: Looks | None) -> tuple[dict[str, dict[str, float]], bool]:
    """IoUs by the run's name, all of the same images, and whether of those that were looked at."""
    recorded = {one.name: one.ious for one in shown}
    tests = {repr(one.settings.get("DATASETS.TEST")) for one in shown}
    if all(recorded.values()) and len(tests) == 1:
        return recorded, False
    if looks is None or not looks.labeled:
        name = shown[0].name
        return {name: recorded[name]} if recorded[name] else {}, False
    found = {}
    for name, matrix in looks.confusion.items():
        values, labeled = 100 * intersection_over_union(matrix), matrix.sum(1) > 0
        found[name] = {one: float(values[i]) for i, one in enumerate(looks.names) if labeled[i]}
        found[name]["mean"] = float(values[labeled].mean())
    return found, True


def _images(looks: Looks | None, run: Run) -> dict:
    """Images in which the models differ most; all with labels, the worst first; the notable of the rest."""
    images = looks.images if looks else []
    most = sorted(images, key=lambda one: -(one.difference or 0))[:MOST_DIFFERENT]
    worst_first = sorted(
        (one for one in images if run.name in one.ious), key=lambda one: one.ious[run.name]
    )
    rest = [one for one in worst_first if one not in most]
    notable = {"worst": rest[:WORST], "best": rest[WORST:][::-1][:BEST]}
    return {
        "most_different": most,
        "worst_first": worst_first,
        "notable": {name: some for name, some in notable.items() if some},
    }


def _classes(
    run: Run,
    source_only: Run | None,
    models: Mapping[str, Predictor],
    ious: Mapping[str, Mapping[str, float]],
    looks: Looks | None,
) -> list[dict]:
    """A row for each class: IoU with both models, and what share of the pixels it has."""
    after = ious.get(run.name, {})
    before = ious.get(source_only.name, {}) if source_only else {}
    names = models[run.name].names if models else [name for name in after if name != "mean"]
    colors = models[run.name].colors if models else [None] * len(names)
    rows = []
    for index, (name, color) in enumerate(zip(names, colors)):
        one, other = after.get(name), before.get(name)
        shares = looks.shares.items() if looks else ()
        rows.append(
            {
                "name": name,
                "color": color,
                "after": one,
                "before": other,
                "change": None if one is None or other is None else one - other,
                "shares": {who: 100 * float(share[index]) for who, share in shares},
            }
        )
    return rows


def _evaluations(run: Run) -> list[dict]:
    """A row for each evaluation: the score that decides, classes gone wrong, mIoU."""
    score = run.settings.get("TEST.SELECTION.SCORE")
    selected = run.selected
    return [
        {
            "iteration": line["iteration"] + 1,
            "score": line.get(f"selection/{score}"),
            "odd_classes": line.get("selection/odd_classes"),
            "mean_iou": class_ious(line).get("mean"),
            "selected": line["iteration"] + 1 == selected,
        }
        for line in run.evaluations
    ]


def _confusions(looks: Looks | None, run: Run) -> list[dict]:
    """The pairs of classes that are confused most, by their share of the label's pixels."""
    if looks is None or not looks.labeled:
        return []
    matrix = looks.confusion[run.name]
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    pairs = np.argsort(-share, axis=None)[:CONFUSIONS]
    found = [np.unravel_index(pair, share.shape) for pair in pairs]
    return [
        {"label": looks.names[i], "predicted": looks.names[j], "share": 100 * float(share[i, j])}
        for i, j in found
        if share[i, j] > 0
    ]


def _trust(looks: Looks | None) -> list[dict]:
    """Of each model and signal: is it calibrated, does it tell errors; with the curves' points."""
    rows = []
    for name in reversed(looks.models if looks and looks.labeled else ()):
        wrong = looks.wrong[name]
        for signal, doubt in looks.doubts[name].items():
            found = error_detection(doubt, wrong)
            risk = risk_coverage(doubt, wrong)
            chosen = np.linspace(0, len(risk) - 1, CURVE).astype(int)
            row = {"model": name, "signal": signal}
            row |= {key: 100 * found[key] for key in ("AUROC", "AURC", "FPR95", "coverage-5")}
            row["coverage"], row["risk"] = (
                ((chosen + 1) / len(risk)).tolist(),
                risk[chosen].tolist(),
            )
            if signal == "confidence":
                row["ECE"] = 100 * calibration_error(1 - doubt, ~wrong)
                row["bins"] = {
                    k: v.tolist() for k, v in reliability(1 - doubt, ~wrong)._asdict().items()
                }
            rows.append(row)
    return rows


def _group(group: Sequence[Run]) -> dict:
    """Runs that differ in their seed alone, in one row."""
    means = [one.ious["mean"] for one in group if one.ious]
    return {
        "runs": [one.name for one in group],
        "seeds": [one.settings.get("SEED") for one in group],
        "mean_iou": mean_and_spread(means),
        "alarms": sum(bool(one.alarms) for one in group),
    }


def _drawn(content: Content) -> dict[str, Markup]:
    """The figures, by name; those that there is nothing for are left out."""
    run, looks, drawn = content.run, content.looks, {}
    if looks:
        shares = {f"predicted by {name}": looks.shares[name] for name in reversed(looks.models)}
        if looks.source_shares is not None:
            shares["labels of the source"] = looks.source_shares
        if "labels" in looks.shares:
            shares["labels of these images"] = looks.shares["labels"]
        drawn["shares"] = figures.class_shares(shares, looks.names)
    for name in ("score", "mean_iou"):
        rows = [row for row in content.evaluations if row[name] is not None]
        if len(rows) > 1:
            label = (
                "mIoU, %" if name == "mean_iou" else str(run.settings.get("TEST.SELECTION.SCORE"))
            )
            line = [row["iteration"] for row in rows], [row[name] for row in rows]
            mark = run.selected or None
            drawn[name] = figures.curves({label: line}, f"{label} over the iterations", label, mark)
    if looks and looks.labeled:
        title = (
            f"Confusion of {run.name}: of each label's pixels, the share predicted as each class"
        )
        drawn["confusion"] = figures.confusion(looks.confusion[run.name], looks.names, title)
        drawn["reliability"] = figures.reliability(
            {row["model"]: row["bins"] for row in content.trust if "bins" in row}
        )
        lines = [(r["model"], r["signal"], r["coverage"], r["risk"]) for r in content.trust]
        drawn["risk_coverage"] = figures.risk_coverage(lines)
    confident = run.series("pseudo_label/confident_share")
    if len(confident[0]) > 1:
        drawn["pseudo_labels"] = figures.curves(
            {"sure pixels": confident}, "Share of sure pseudo-labels over the iterations",
            "share of sure pixels", limits=(0, 1),
        )  # fmt: skip
    return drawn
