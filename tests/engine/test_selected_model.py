"""Which checkpoint is selected, from evaluations that are made up."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pppc.engine.selection import Selection
from pppc.evaluation.selection import DrawnPixels

FILES = ["a.png", "b.png"]


class Run:
    """The hooks' trainer, checkpointer and draw; models are their class maps, 2 images of 10 pixels."""

    def __init__(self, folder, score, start_iter=0, files=FILES):
        self.save_dir, self.start_iter, self.saved, self.files = folder, start_iter, [], files
        self.odd = 0
        alarms = SimpleNamespace(
            of_predictions=lambda drawn: {}, report=lambda *found: None,
            number_of_odd_classes=lambda shares: self.odd,
        )  # fmt: skip
        self.selection = Selection(self, lambda: self, score, alarms)
        self.selection.trainer = self

    def save(self, name, chosen, iteration):
        self.saved.append((name, iteration))

    def __call__(self, model, former):
        classes = torch.as_tensor(model).expand(2, 10)
        return DrawnPixels(
            probabilities=torch.nn.functional.one_hot(classes, 2).float() * 0.8 + 0.1,
            source_shares=torch.tensor([0.5, 0.5]),
            source=np.eye(2, dtype=int),
            held_out=False,
            strong=classes.byte(),
            former=torch.cat([torch.empty(0, 2, 10, dtype=torch.uint8), *former]),
        )

    def evaluate(self, iteration, zeros):
        """Of a model that says 0 of the first pixels of each image."""
        self.iter = iteration
        found = self.selection.evaluate(torch.tensor([0] * zeros + [1] * (10 - zeros)), iteration)
        self.selection.after_step()
        return found


def test_the_best_by_the_vote_of_all_is_kept_and_a_resumed_run_goes_on(tmp_path):
    run = Run(tmp_path, "ensemble_agreement")
    found = run.evaluate(1, zeros=1)
    assert found["iteration"] == 1 and found["ensemble_agreement"] == 100
    assert "teacher_agreement" not in found
    assert run.evaluate(3, zeros=5)["iteration"] == 1  # of two voices the first
    # With a third voice most say what iteration 3 says: 1 is kept no longer.
    assert run.evaluate(5, zeros=6)["iteration"] == 5
    assert run.saved == [("model_selected", 1), ("model_selected", 5)]
    run.iter = 6
    run.selection.after_step()  # without an evaluation
    assert len(run.saved) == 2

    whole = run.evaluate(7, zeros=5)
    resumed = Run(tmp_path, "ensemble_agreement", start_iter=6)
    assert resumed.evaluate(7, zeros=5) == whole
    other = Run(tmp_path, "ensemble_agreement", start_iter=8, files=["c.png", "d.png"])
    assert other.evaluate(9, zeros=1)["iteration"] == 9  # of other images: the votes begin anew


def test_a_score_s_sign_decides(tmp_path):
    run = Run(tmp_path, "entropy")
    first = run.evaluate(1, zeros=1)
    assert run.evaluate(3, zeros=5)["iteration"] == 1  # as sure
    assert first["entropy"] == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1), rel=1e-6)
    candidate = run.selection.candidates[-1]
    better = SimpleNamespace(scores=candidate.scores - 1, odd=0)
    drawn = run(torch.zeros(10, dtype=torch.int64), [])
    assert run.selection._value(better, drawn) > run.selection._value(candidate, drawn)


def test_a_model_with_an_odd_class_is_the_worse_one(tmp_path):
    run = Run(tmp_path, "ensemble_agreement")
    run.odd = 2
    assert run.evaluate(1, zeros=5)["odd_classes"] == 2
    run.odd = 1
    assert run.evaluate(3, zeros=1)["iteration"] == 3
    run.odd = 2
    found = run.evaluate(5, zeros=5)
    assert found["iteration"] == 3  # most say what the last one says
    new, drawn = run.selection.candidates[-1], run(torch.zeros(10, dtype=torch.int64), [])
    few, many = (torch.cat([torch.full((n,), 1 / n), torch.zeros(10 - n)]) for n in (5, 7))
    worse, equal = (  # two of five classes are a third, two of seven are not
        run.selection._value(new, replace(drawn, source_shares=shares))[0] for shares in (few, many)
    )
    assert (worse, equal) == (-1, 0)


def test_a_file_that_cannot_be_read_is_told(tmp_path, caplog):
    (tmp_path / "selection.npz").write_bytes(b"cut")
    run = Run(tmp_path, "entropy", start_iter=3)
    assert run.evaluate(5, zeros=1)["iteration"] == 5
    assert "selection.npz can't be read" in caplog.text
