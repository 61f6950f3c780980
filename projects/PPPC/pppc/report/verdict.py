"""Did it work? The report's first line, from what is known with or without labels of the target."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..engine.alarms import SMALLEST, class_alarms
from .looks import Looks
from .runs import Run

BRIEF = 80  # characters
ABSENT = 0.0005  # share of the pixels
# mIoU, in percent, by which runs differ that differ in their seed alone (docs/study.md).
LITTLE = 1.0


@dataclass(frozen=True)
class Verdict:
    """What the report begins with.

    Attributes:
        state: "helped", "worse", "doubt", or "unknown".
        headline: one line.
        sentences: what more is to be known of it.
    """

    state: str
    headline: str
    sentences: list[str]


def judge(
    run: Run, source_only: Run | None, ious: Mapping[str, Mapping[str, float]], looks: Looks | None
) -> Verdict:
    """The verdict on a run.

    Args:
        run: the one that the report is about.
        source_only: what it is compared with.
        ious: by the run's name the IoU of each class and "mean", in percent, where there are labels.
        looks: what both models say of the same images; None: they were not looked at.
    """
    mean = ious.get(run.name, {}).get("mean")
    before = None if source_only is None else ious.get(source_only.name, {}).get("mean")
    odd = odd_classes(run, source_only, looks)
    if run.is_source_only:
        state, headline = "unknown", "This run is source-only: nothing was adapted."
        headline += "" if mean is None else f" Its mIoU is {mean:.1f} %."
    elif mean is not None and before is not None:
        change = mean - before
        state, words = _of_change(change)
        headline = f"{words}: mIoU {mean:.1f} %, source-only {before:.1f} % ({change:+.1f})."
    elif mean is not None:
        state = "unknown"
        headline = (
            f"mIoU {mean:.1f} %. Whether adapting helped is not known without a source-only run."
        )
    elif run.alarms or odd or run.selected == 0:
        state, headline = (
            "doubt",
            "Do not trust this model without a look: there are no labels, and",
        )
        headline += " something speaks against it."
    else:
        state = "unknown"
        headline = (
            "Nothing speaks against this model; without labels that is all that can be known."
        )
    headline += _of_alarms(run)
    if run.selected == 0:
        headline += " The choice without labels keeps the source-only model."
    return Verdict(state, headline, list(_sentences(run, source_only, odd, looks)))


def _of_alarms(run: Run) -> str:
    """Those that sounded while it trained, and what it said where it was one of few words."""
    said = ""
    for over, words in (
        (False, "Alarm at the end"),
        (True, "Alarm while training, over at the end"),
    ):
        alarms = [alarm for alarm in run.alarms if alarm.over == over]
        if alarms:
            brief = len(alarms) == 1 and 0 < len(alarms[0].words) < BRIEF
            more = f" ({alarms[0].words.rstrip('.')})" if brief else ""
            said += f" {words}: {', '.join(alarm.name for alarm in alarms)}{more}."
    return said


def _of_change(change: float) -> tuple[str, str]:
    """The state and the first words of a change of mIoU.

    Examples:
        >>> _of_change(0.4)
        ('unknown', 'Adapting changed little')
    """
    if abs(change) < LITTLE:
        return "unknown", "Adapting changed little"
    return ("helped", "Adapting helped") if change > 0 else ("worse", "Adapting did harm")


def odd_classes(run: Run, source_only: Run | None, looks: Looks | None) -> dict[str, list[str]]:
    """What is odd about the class shares of the predictions for the images here, by alarm: words.

    Beside :func:`pppc.engine.alarms.class_alarms` those that the model never predicts, though the source
    has them.
    """
    if looks is None or looks.source_shares is None:
        return {}
    shares = {name: torch.from_numpy(share) for name, share in looks.shares.items()}
    source, after = torch.from_numpy(looks.source_shares), shares[run.name]
    before = None if source_only is None else shares.get(source_only.name)
    found = class_alarms(after, source, before, looks.names)
    absent = ((source >= SMALLEST) & (after < ABSENT)).nonzero().flatten().tolist()
    absent = [
        f"{looks.names[i]} has {100 * after[i]:.2g} %, in the source {100 * source[i]:.2g} %"
        for i in absent
    ]
    return found | ({"class_absent": absent} if absent else {})


def _sentences(
    run: Run, source_only: Run | None, odd: Mapping[str, list[str]], looks: Looks | None
) -> Iterator[str]:
    last = max((line["iteration"] + 1 for line in run.metrics), default=0)
    if last < (planned := run.settings.get("SOLVER.MAX_ITER", 0)):
        yield f"The run is not finished: iteration {last} of {planned}."
    for key, low in (run.evaluations[-1] if run.ious else {}).items():
        if key.endswith("sem_seg/mIoU-low"):
            high = run.last(key.removesuffix("low") + "high")
            yield f"Of other such images its mIoU would be {low:.1f} to {high:.1f} % (95 %, bootstrap)."
    for name, words in odd.items():
        yield f"{name.capitalize().replace('_', ' ')} in the images here: {'; '.join(words)}."
    if source_only is None or looks is None or source_only.name not in looks.shares:
        if source_only is None and not run.is_source_only:
            yield (
                "Compare it with what it began as: pppc report RUN SOURCE_ONLY_RUN shows both side by side."
            )
        return
    differences = [100 * look.difference for look in looks.images]
    yield (
        f"The two differ in {np.mean(differences):.1f} % of the pixels of {len(looks.images)} images, from "
        f"{min(differences):.1f} to {max(differences):.1f} % of an image."
    )
    compared = [one.ious for one in looks.images if {run.name, source_only.name} <= one.ious.keys()]
    if compared:
        better = sum(ious[run.name] > ious[source_only.name] for ious in compared)
        yield f"By its own mean IoU it is better in {better} of {len(compared)} images."
