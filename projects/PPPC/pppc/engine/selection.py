"""The choice of a checkpoint without target labels."""

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
from ..errors import InputError
from ..evaluation.drawn_pixels import PixelDraw
from ..evaluation.selection import SCORES, DrawnPixels, EnsembleAgreement
from ..files import atomic_write
from ..modeling.meta_arch import PPPCSegmentor
from ..prediction import Predictor, load
from .alarms import SMALLEST, Alarms

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Candidate:
    """A model that was evaluated.

    Attributes:
        iteration: after which it was; -1 is the source-only model.
        odd: number of its classes that have vanished, grown or are unknown to the source, or of its teacher's
            if these are more.
        scores: in the order of SCORES; NaN for none.
        classes: the student's, and if there is one the teacher's, ``(1 or 2, I, P)`` uint8.
    """

    iteration: int
    odd: int
    scores: np.ndarray
    classes: Tensor


def selects(cfg: CfgNode) -> bool:
    """Whether a run chooses a checkpoint without labels."""
    return bool(cfg.DATASETS.TARGET) and cfg.TEST.SELECTION.IMAGES > 0


def _candidate(iteration: int, drawn: DrawnPixels, odd: int) -> _Candidate:
    scores = [score(drawn) for score in SCORES.values()]
    values = np.array([math.nan if value is None else value for value in scores])
    return _Candidate(iteration, odd, values, drawn.candidates)


class Selection(HookBase):
    """At each evaluation all label-free scores; the best model by one of them is model_selected.pth.

    What all models so far have predicted for the drawn pixels is kept in the run's folder, so that a
    resumed run goes on with their votes. With "ensemble_agreement" a new model is compared with the one
    that is kept, by the vote of all. Of two models the one with fewer odd classes, in thirds of the classes,
    (:func:`pppc.engine.alarms.class_alarms`) is the better one, whatever the score says: a model
    that has lost a class is sure, and agrees with others that have.

    Args:
        checkpointer: of the run.
        build_draw: makes the draw of pixels, at the first evaluation.
        score: the name of the score that decides.
        alarms: of the run.
    """

    NAME = "model_selected"
    FILE = "selection.npz"

    def __init__(
        self,
        checkpointer: StrictCheckpointer,
        build_draw: Callable[[], PixelDraw],
        score: str,
        alarms: Alarms,
    ):
        self.checkpointer = checkpointer
        self.build_draw = build_draw
        self.score = score
        self.alarms = alarms
        self.source_model: Predictor | None = None
        self.path = Path(checkpointer.save_dir) / self.FILE
        self.draw: PixelDraw | None = None
        self.candidates: list[_Candidate] = []
        self.selected = -1  # the iteration of model_selected.pth

    def load_source_model(self, cfg: CfgNode) -> None:
        """Compare with the model of TEST.SELECTION.SOURCE_MODEL, too.

        Raises:
            InputError: it can't be loaded, or has other classes.
        """
        path = cfg.TEST.SELECTION.SOURCE_MODEL
        model, names = load(path, ["MODEL.DEVICE", cfg.MODEL.DEVICE]), self.alarms.names
        if list(model.names) != list(names):
            raise InputError(
                f"TEST.SELECTION.SOURCE_MODEL {path} has the classes {', '.join(model.names)}, this run "
                f"{', '.join(names)}: give a source-only model of the same classes"
            )
        self.source_model = model

    def evaluate(self, model: PPPCSegmentor, iteration: int) -> dict[str, float]:
        """The scores of the model after an iteration by their names, and "iteration", the selected one."""
        self._begin()
        assert self.draw is not None
        former = [one for one in self.candidates if one.iteration < iteration]
        drawn = self.draw(model, [one.classes for one in former])
        found = self.alarms.of_predictions(drawn)
        self.alarms.report("evaluation", found)
        odd = map(self.alarms.number_of_odd_classes, map(drawn.shares, drawn.candidates))
        new = _candidate(iteration, drawn, max(odd))
        best = [one for one in former if one.iteration == self.selected]
        if not best or self._value(new, drawn) > self._value(best[0], drawn):
            self.selected = iteration
            logger.info("The model has the best %s so far", self.score)
        self.candidates = [*former, new]
        scores = zip(SCORES, new.scores.tolist())
        known = {name: value for name, value in scores if not math.isnan(value)}
        return known | {"iteration": self.selected, "odd_classes": new.odd}

    def _begin(self) -> None:
        """Once: the draw, what the run found before, and the source-only model."""
        if self.draw is not None:
            return
        self.draw = self.build_draw()
        self._read()
        if self.source_model is None:
            return
        source_only, self.source_model = self.source_model, None  # it is needed but once
        drawn = self.draw(source_only.model)
        self.alarms.model_shares = drawn.shares(drawn.classes)
        if not self.candidates:
            self.candidates = [_candidate(-1, drawn, 0)]
            content = StrictCheckpointer(source_only.model, cfg=source_only.cfg).content(
                trainer={"config": source_only.cfg.dump()}
            )
            with atomic_write(self.path.with_name(f"{self.NAME}.pth")) as path:
                torch.save(content, path)

    def _value(self, candidate: _Candidate, drawn: DrawnPixels) -> tuple[int, float]:
        """What is to be high, by the votes of all so far."""
        if self.score == EnsembleAgreement.name:
            num_classes = len(drawn.source_shares)
            value = EnsembleAgreement.of(candidate.classes[0], drawn.votes, num_classes)
        else:
            value = SCORES[self.score].sign * candidate.scores[list(SCORES).index(self.score)]
        usual = int((drawn.source_shares >= SMALLEST).sum())
        return -(3 * candidate.odd // max(usual, 1)), -math.inf if math.isnan(value) else value

    def before_train(self) -> None:
        self._begin()
        if self.trainer.start_iter > 0:
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
                odd=[one.odd for one in self.candidates],
                scores=[one.scores for one in self.candidates],
                voices=[len(one.classes) for one in self.candidates],
                classes=torch.cat([one.classes for one in self.candidates]),
            )

    def _read(self) -> None:
        """Go on with what the run found before its checkpoint."""
        if not self.path.is_file():
            return
        try:
            with np.load(self.path) as found:
                drawn_from = found["files"].tolist(), found["names"].tolist()
                classes = torch.from_numpy(found["classes"]).split(found["voices"].tolist())
                columns = (found["iterations"].tolist(), found["odd"].tolist(), found["scores"])
                candidates = zip(*columns, classes)
                selected = int(found["selected"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s can't be read (%s): the votes begin anew", self.path, error)
            return
        if drawn_from != (self.draw.files, list(SCORES)):
            logger.warning("%s is of other images: the votes begin anew", self.path)
            return
        self.selected = selected
        self.candidates = [
            _Candidate(*candidate)
            for candidate in candidates
            if candidate[0] < self.trainer.start_iter
        ]
