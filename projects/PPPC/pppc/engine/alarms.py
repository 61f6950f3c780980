"""Training that goes wrong, said while it happens and without any target label.

Shapes: C classes.
"""

import logging
import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor
from torch.nn.utils import get_total_norm

from ..evaluation.selection import DrawnPixels
from ..method.labeled_pixels import count_labels
from ..modeling.meta_arch import PPPCSegmentor

logger = logging.getLogger(__name__)

WINDOW = 50  # steps that pseudo-labels, crops and gradients are looked at over
PERIOD = 10  # steps between two looks
SMALLEST = 0.005  # share of a class whose vanishing is noticed
STRAY = 0.001  # share of a class of which nothing is said
FEW_CONFIDENT = 0.01  # share of confident pixels
MOSTLY = 0.9  # share of the crops
FAINT = 0.001  # of the contrast's gradient
APART = 0.3  # share of pixels in which teacher and student differ

BALANCE = (
    "Raise PPPC.CLASS_BALANCE.PSEUDO_LABELS (0.5), start from a source-only model (MODEL.WEIGHTS) if the run "
    "did not, or take a checkpoint from before"
)
#: What each alarm means and what to try, by its name in metrics.json (`alarm/NAME`).
ALARMS = {
    "no_confident_pixel": "The target trains nothing: lower PPPC.SELF_TRAINING.THRESHOLD, or start from a "
    "source-only model (MODEL.WEIGHTS) if the run did not",
    "few_classes": f"The labels of the target collapse. {BALANCE}",
    "class_vanished": f"The model loses it on the target. {BALANCE}",
    "class_grown": "It spreads over others. Lower PPPC.CLASS_BALANCE.PSEUDO_LABELS if it is above 0, start "
    "from a source-only model (MODEL.WEIGHTS) if the run did not, or take a checkpoint from before",
    "class_unknown_to_source": "Nothing trains it: leave it out, or take a source that shows it",
    "contrast_without_gradient": "The contrast trains nothing: lower PPPC.CONTRAST.TEMPERATURE (recommended: "
    "0.1, with MODEL.PROBABILISTIC_HEAD.VARIANCE_OVER_DIM True)",
    "crop_by_chance": "The crop's criterion decides nothing: raise PPPC.AMBIGUITY_CROP.TEMPERATURE, or "
    'save the time by CRITERION "random"',
    "teacher_apart": "Lower PPPC.TEACHER.MOMENTUM, or the learning rate SOLVER.BASE_LR",
}


def class_alarms(
    shares: Tensor,
    source_shares: Tensor,
    model_shares: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, list[str]]:
    """What is odd about the class shares of pseudo-labels, or of predictions, on the target.

    What is expected are the shares in the source's labels and, where it is known, what a source-only
    model predicts for the same images. A class vanishes that has less than half of the smaller one
    (without the model a tenth), it grows where it has three times the larger one and a tenth of all
    pixels more (without the model three tenths). Of the number of classes a quarter must be left.

    Args:
        shares: ``(C,)``, their sum 1.
        source_shares: of the source's labels, ``(C,)``.
        model_shares: of the source-only model's predictions, ``(C,)``.
        names: of the classes; None: their indices.

    Returns:
        by the alarm's name a few words for each class that it is about.

    Examples:
        >>> class_alarms(torch.tensor([0.99, 0.01]), torch.tensor([0.9, 0.1]), torch.tensor([0.92, 0.08]))
        {'few_classes': ['as if 1.1 classes, not 1.3'], 'class_vanished': ['1 has 1 %, not 8 %']}
    """
    expected = [source_shares] if model_shares is None else [source_shares, model_shares]
    low, high = torch.stack(expected).amin(0).tolist(), torch.stack(expected).amax(0).tolist()
    rest, room = (1 / 10, 0.3) if model_shares is None else (1 / 2, 0.1)
    found: dict[str, list[str]] = defaultdict(list)
    number, usual = _effective_number(shares), min(map(_effective_number, expected))
    if number - 1 < (usual - 1) / 4:
        found["few_classes"].append(f"as if {number:.2g} classes, not {usual:.2g}")
    for index, share in enumerate(shares.tolist()):
        name = names[index] if names else index
        if low[index] >= SMALLEST and share < rest * low[index]:
            found["class_vanished"].append(
                f"{name} has {100 * share:.3g} %, not {100 * low[index]:.2g} %"
            )
        if share > max(3 * high[index], high[index] + room):
            found["class_grown"].append(
                f"{name} has {100 * share:.3g} %, not {100 * high[index]:.2g} %"
            )
        if source_shares[index] == 0 and share > STRAY:
            found["class_unknown_to_source"].append(f"{name} has {100 * share:.3g} %")
    return dict(found)


def _effective_number(shares: Tensor) -> float:
    """As many equally frequent classes have that entropy."""
    return math.exp(float(torch.special.entr(shares).sum()))


class Alarms(HookBase):
    """Every few steps, and after each evaluation: a warning where something goes wrong.

    One line when it begins, one when it is over; `alarm/NAME` in metrics.json is 1 in between. Nothing is
    said of the first tenth of a run.

    Args:
        cfg: the configuration.
        source_shares: of the classes in the source's labels, ``(C,)``.
        names: of the classes.
    """

    def __init__(self, cfg: CfgNode, source_shares: Tensor, names: Sequence[str]):
        self.start = cfg.SOLVER.MAX_ITER // 10
        window = min(WINDOW, max(self.start, 1))
        self.period = min(PERIOD, window)
        self.source_shares = source_shares
        self.model_shares: Tensor | None = None
        self.names = names
        self.pseudo_labels: deque[Tensor] = deque(maxlen=window)  # pixels of each class, (C,)
        self.confident: deque[float] = deque(maxlen=window)
        self.by_chance: deque[float] = deque(maxlen=window)
        self.gradients: deque[float] = deque(maxlen=math.ceil(window / self.period))
        self.sounding: dict[str, set[str]] = {name: set() for name in ALARMS}

    def after_step(self) -> None:
        loop, iteration = self.trainer._trainer, self.trainer.iter + 1
        latest = self.trainer.storage.latest()
        if loop.record.target is not None:
            # On their device: a copy would make the step wait for it.
            self.pseudo_labels.append(count_labels(loop.record.target.label, len(self.names)))
            self.confident.append(latest["pseudo_label/confident_share"][0])
            if loop.ambiguity_crop.chooses(loop.segmentor.prototypes):
                self.by_chance.append(latest["crop/by_chance"][0])
        if iteration % self.period == 0:
            if latest.get("contrast/scale", (0, 0))[0] > 0:
                self.gradients.append(_gradient_of_contrast(loop.segmentor))
            self.report("training", self._of_steps())
        for name, places in self.sounding.items():
            self.trainer.storage.put_scalar(f"alarm/{name}", bool(places), smoothing_hint=False)

    def _of_steps(self) -> dict[str, list[str]]:
        """What the last steps show."""
        found: dict[str, list[str]] = {}
        if len(self.pseudo_labels) == self.pseudo_labels.maxlen:
            counts = sum(self.pseudo_labels).cpu()
            found = class_alarms(
                counts / counts.sum(), self.source_shares, self.model_shares, self.names
            )
            confident = sum(self.confident) / len(self.confident)
            if confident < FEW_CONFIDENT:
                found["no_confident_pixel"] = [f"{100 * confident:.2g} % of the pixels are sure"]
        if len(self.by_chance) == self.by_chance.maxlen:
            share = sum(self.by_chance) / len(self.by_chance)
            if share > MOSTLY:
                found["crop_by_chance"] = [f"in {100 * share:.0f} % of the images"]
        if len(self.gradients) == self.gradients.maxlen and max(self.gradients) < FAINT:
            found["contrast_without_gradient"] = [
                f"{max(self.gradients):.1g} of the decoder's gradient at most"
            ]
        return found

    def of_predictions(self, drawn: DrawnPixels) -> dict[str, list[str]]:
        """What an evaluation shows, of the model and of its teacher."""
        found: dict[str, list[str]] = defaultdict(list)
        for whose, classes in zip(("the model's", "the teacher's"), drawn.candidates):
            shares = drawn.shares(classes)
            odd = class_alarms(shares, self.source_shares, self.model_shares, self.names)
            for name, words in odd.items():
                found[name] += [f"{whose} {one}" for one in words]
        apart = float((drawn.candidates[0] != drawn.candidates[-1]).double().mean())
        if apart > APART:
            found["teacher_apart"].append(f"they differ in {100 * apart:.0f} % of the pixels")
        return dict(found)

    def number_of_odd_classes(self, shares: Tensor) -> int:
        """Of the class shares ``(C,)`` of predictions, those that have vanished, grown or are unknown."""
        found = class_alarms(shares, self.source_shares, self.model_shares)
        return sum(len(words) for name, words in found.items() if name != "few_classes")

    def report(self, place: str, found: Mapping[str, Sequence[str]]) -> None:
        """Log what is new and what is over, after the first tenth of the run.

        Args:
            place: "training" or "evaluation".
            found: by the alarm's name a few words each.
        """
        if self.trainer.iter + 1 < self.start:
            return
        for name, places in self.sounding.items():
            if name in found and place not in places:
                places.add(place)
                logger.warning(
                    "Alarm %s in %s: %s. %s", name, place, "; ".join(found[name]), ALARMS[name]
                )
            elif name not in found and place in places:
                places.remove(place)
                logger.info("Alarm %s in %s is over", name, place)


def _gradient_of_contrast(segmentor: PPPCSegmentor) -> float:
    """Norm of the last step's gradient of the embedding's mean over the decoder's."""
    student = segmentor.student
    contrast, decoder = (
        get_total_norm([p.grad for p in part.parameters() if p.grad is not None])
        for part in (student.probabilistic_head.mean, student.sem_seg_head)
    )
    return float(contrast / decoder)
