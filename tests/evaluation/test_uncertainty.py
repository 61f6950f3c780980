"""Does the uncertainty know where the model errs? Figures by hand and by definition."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pppc.evaluation.uncertainty import UncertaintyEvaluator, area_under_risk_coverage, error_auroc


def test_auroc_counts_the_pairs_in_which_the_wrong_pixel_is_the_more_uncertain():
    rng = np.random.default_rng(0)
    uncertainty, wrong = rng.integers(6, size=80), rng.random(80) < 0.3
    pairs = uncertainty[wrong][:, None] - uncertainty[~wrong][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert error_auroc(uncertainty, wrong) == pytest.approx(expected)
    assert np.isnan(error_auroc(uncertainty, np.zeros(80, bool)))


def test_aurc_by_hand():
    wrong = np.array([True, False, False, True])
    # From the most certain on, 3 1 0 2: errors 1, 1, 2, 2 of 1, 2, 3, 4.
    area = area_under_risk_coverage(np.array([0.3, 0.2, 0.9, 0.1]), wrong)
    assert area == pytest.approx((1 + 1 / 2 + 2 / 3 + 2 / 4) / 4)
    # The perfect one: errors 0, 0, 1, 2.
    assert area_under_risk_coverage(wrong, wrong) == pytest.approx((1 / 3 + 2 / 4) / 4)


def test_an_uncertainty_that_knows_nothing_leaves_the_share_of_errors_at_every_step():
    wrong = np.arange(100) % 4 == 0
    assert area_under_risk_coverage(np.zeros(100), wrong) == pytest.approx(0.25)
    assert error_auroc(np.zeros(100), wrong) == pytest.approx(0.5)


def test_evaluator_leaves_unlabeled_pixels_out_and_tells_them_apart(caplog):
    label = np.array([[0, 1, 255], [1, 0, 7]])
    reader = SimpleNamespace(label_of=lambda record: label, num_classes=2)
    evaluator = UncertaintyEvaluator(reader)
    probability = torch.tensor([[0.9, 0.6, 0.5], [0.45, 0.3, 0.5]])  # of class 0: 2 of 4 wrong
    output = {
        "sem_seg": torch.stack([probability, 1 - probability]).log(),
        "uncertainty": torch.tensor([[-4.0, -1.0, 9.0], [-2.0, -3.0, 9.0]]),
        "log_variance": torch.tensor([[4.0, 1.0, 9.0], [2.0, 3.0, 9.0]]),
    }
    evaluator.process([{"sem_seg_file_name": "any"}], [output])
    with caplog.at_level("INFO", "pppc"):
        results = evaluator.evaluate()["uncertainty"]
    assert "| prototypes    |             75.00 |" in caplog.text  # Detectron2 prints no such keys
    # Wrong: (0, 1), said a at 0.6, is b; (1, 1), said b at 0.7, is a.
    assert results["AUROC-prototypes"] == pytest.approx(75)
    assert results["AUROC-variance"] == pytest.approx(25)
    assert results["AUROC-confidence"] == pytest.approx(50)
    assert results["AUROC-entropy"] == pytest.approx(50)
    assert results["AURC-none"] == pytest.approx(50)
    assert results["AURC-perfect"] == pytest.approx(100 * (1 / 3 + 2 / 4) / 4)
