"""The choice of a checkpoint without target labels."""

from __future__ import annotations

import logging
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor

from ..checkpoints.checkpointer import StrictCheckpointer
from ..evaluation.drawn_pixels import PixelDraw
from ..evaluation.selection import SCORES, DrawnPixels, EnsembleAgreement
from ..files import atomic_write
from ..modeling.meta_arch import PPPCSegmentor

__all__ = ["Selection", "selects"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Candidate:
    """A model that was evaluated.

    Attributes:
        iteration: after which it was.
        scores: in the order of SCORES; NaN for none.
        classes: the student's, and if there is one the teacher's, ``(1 or 2, I, P)`` uint8.
    """

    iteration: int
    scores: np.ndarray
    classes: Tensor


def selects(cfg: CfgNode) -> bool:
    """Whether a run chooses a checkpoint without labels."""
    return bool(cfg.DATASETS.TARGET) and cfg.TEST.SELECTION.IMAGES > 0


class Selection(HookBase):
    """At each evaluation all label-free scores; the best model by one of them is model_selected.pth.

    What all models so far have predicted for the drawn pixels is kept in the run's folder, so that a
    resumed run goes on with their votes. With "ensemble_agreement" a new model is compared with the one
    that is kept, by the vote of all.

    Args:
        checkpointer: of the run.
        build_draw: makes the draw of pixels, at the first evaluation.
        score: the name of the score that decides.
    """

    NAME = "model_selected"
    FILE = "selection.npz"

    def __init__(
        self,
        checkpointer: StrictCheckpointer,
        build_draw: Callable[[], PixelDraw],
        score: str,
    ):
        self.checkpointer = checkpointer
        self.build_draw = build_draw
        self.score = score
        self.path = Path(checkpointer.save_dir) / self.FILE
        self.draw: PixelDraw | None = None
        self.candidates: list[_Candidate] = []
        self.selected = -1  # the iteration of model_selected.pth

    def evaluate(self, model: PPPCSegmentor, iteration: int) -> dict[str, float]:
        """The scores of the model after an iteration by their names, and "iteration", the selected one."""
        if self.draw is None:
            self.draw = self.build_draw()
            self._read()
        former = [one for one in self.candidates if one.iteration < iteration]
        drawn = self.draw(model, [one.classes for one in former])
        scores = {name: score(drawn) for name, score in SCORES.items()}
        values = [math.nan if value is None else value for value in scores.values()]
        new = _Candidate(iteration, np.array(values), drawn.candidates)
        best = [one for one in former if one.iteration == self.selected]
        if not best or self._value(new, drawn) > self._value(best[0], drawn):
            self.selected = iteration
            logger.info("The model has the best %s so far", self.score)
        self.candidates = [*former, new]
        known = {name: value for name, value in scores.items() if value is not None}
        return known | {"iteration": self.selected}

    def _value(self, candidate: _Candidate, drawn: DrawnPixels) -> float:
        """What is to be high, by the votes of all so far."""
        if self.score == EnsembleAgreement.name:
            num_classes = len(drawn.source_shares)
            return EnsembleAgreement.of(candidate.classes[0], drawn.votes, num_classes)
        value = SCORES[self.score].sign * candidate.scores[list(SCORES).index(self.score)]
        return -math.inf if math.isnan(value) else value

    def before_train(self) -> None:
        self._keep(self.trainer.start_iter - 1)  # evaluated before the first step

    def after_step(self) -> None:
        self._keep(self.trainer.iter)

    def _keep(self, iteration: int) -> None:
        """Write what was found, if this iteration was evaluated."""
        if not self.candidates or self.candidates[-1].iteration != iteration:
            return
        if self.selected == iteration:
            self.checkpointer.save(self.NAME, chosen=True, iteration=iteration)
        with atomic_write(self.path) as path, open(path, "wb") as file:
            np.savez_compressed(
                file,
                files=self.draw.files,
                selected=self.selected,
                names=list(SCORES),
                iterations=[one.iteration for one in self.candidates],
                scores=[one.scores for one in self.candidates],
                classes=torch.stack([one.classes for one in self.candidates]),
            )

    def _read(self) -> None:
        """Go on with what the run found before its checkpoint."""
        if not self.path.is_file():
            return
        try:
            with np.load(self.path) as found:
                same = found["files"].tolist() == self.draw.files and found[
                    "names"
                ].tolist() == list(SCORES)
                candidates = zip(found["iterations"].tolist(), found["scores"], found["classes"])
                selected = int(found["selected"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s can't be read (%s): the votes begin anew", self.path, error)
            return
        if not same:
            logger.warning("%s is of other images: the votes begin anew", self.path)
            return
        self.selected = selected
        self.candidates = [
            _Candidate(iteration, scores, torch.from_numpy(classes))
            for iteration, scores, classes in candidates
            if iteration < self.trainer.start_iter
        ]
