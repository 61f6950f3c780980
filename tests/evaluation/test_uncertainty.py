"""Does the uncertainty know where the model errs? Figures by hand and by definition."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pppc.evaluation.calibration import calibration_error, error_detection
from pppc.evaluation.uncertainty import UncertaintyEvaluator


def test_auroc_counts_the_pairs_in_which_the_wrong_pixel_is_the_more_uncertain():
    rng = np.random.default_rng(0)
    uncertainty, wrong = rng.integers(6, size=80), rng.random(80) < 0.3
    pairs = uncertainty[wrong][:, None] - uncertainty[~wrong][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert error_detection(uncertainty, wrong)["AUROC"] == pytest.approx(expected)
    assert np.isnan(error_detection(uncertainty, np.zeros(80, bool))["AUROC"])


def test_aurc_by_hand():
    wrong = np.array([True, False, False, True])
    # From the most certain on, 3 1 0 2: errors 1, 1, 2, 2 of 1, 2, 3, 4.
    area = error_detection(np.array([0.3, 0.2, 0.9, 0.1]), wrong)["AURC"]
    assert area == pytest.approx((1 + 1 / 2 + 2 / 3 + 2 / 4) / 4)
    # The perfect one: errors 0, 0, 1, 2.
    assert error_detection(wrong, wrong)["AURC"] == pytest.approx((1 / 3 + 2 / 4) / 4)


def test_measures_are_torchmetrics_and_definitions():
    """torch-uncertainty 0.13 gives this AUGRC and coverage, too, and by trapezes almost this AURC."""
    from torchmetrics.functional import classification as theirs  # takes seconds

    rng = np.random.default_rng(0)
    probability = rng.dirichlet([0.5] * 4, size=500).astype(np.float32)
    label = np.where(rng.random(500) < 0.8, probability.argmax(1), rng.integers(4, size=500))
    confidence, wrong = probability.max(1), probability.argmax(1) != label
    uncertainty = (1 - confidence).round(2)  # with ties
    found = error_detection(uncertainty, wrong)
    uncertain, error = torch.from_numpy(uncertainty), torch.from_numpy(wrong)
    assert found["AUROC"] == pytest.approx(float(theirs.binary_auroc(uncertain, error.int())))
    average_precision = float(theirs.binary_average_precision(uncertain, error.int()))
    assert found["AUPR-error"] == pytest.approx(average_precision)
    ece = theirs.multiclass_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(label), 4, n_bins=15
    )
    assert calibration_error(confidence, ~wrong) == pytest.approx(float(ece), rel=1e-3)
    # Every threshold by itself.
    kept = [uncertainty <= threshold for threshold in np.unique(uncertainty)]
    most = max([k.mean() for k in kept if wrong[k].mean() <= 0.05], default=0)
    assert found["coverage-5"] == pytest.approx(most)
    first = next(k for k in kept if (k & ~wrong).sum() >= 0.95 * (~wrong).sum())
    assert found["FPR95"] == pytest.approx((first & wrong).sum() / wrong.sum())
    order = np.argsort(rng.random(500))  # no ties
    cumulated = wrong[order].cumsum()
    distinct = error_detection(order.argsort(), wrong)
    assert distinct["AUGRC"] == pytest.approx((cumulated / 500).mean())
    assert distinct["AURC"] == pytest.approx((cumulated / np.arange(1, 501)).mean())
    assert error_detection(wrong, wrong)["E-AURC"] == pytest.approx(0)
    by_confidence = np.sort(confidence), (~wrong)[np.argsort(confidence, kind="stable")]
    parts = zip(*(np.array_split(values, 15) for values in by_confidence))
    adaptive = sum(len(c) * abs(c.mean(dtype=float) - r.mean()) for c, r in parts) / 500
    assert calibration_error(confidence, ~wrong, equal_mass=True) == pytest.approx(adaptive)


def test_an_uncertainty_that_knows_nothing_leaves_the_share_of_errors_at_every_step():
    wrong = np.arange(100) % 4 == 0
    assert error_detection(np.zeros(100), wrong)["AURC"] == pytest.approx(0.25)
    assert error_detection(np.zeros(100), wrong)["AUROC"] == pytest.approx(0.5)


def test_evaluator_leaves_unlabeled_pixels_out_and_tells_them_apart(tmp_path, caplog):
    label = np.array([[0, 1, 255], [1, 0, 7]], np.uint8)
    reader = SimpleNamespace(label_of=lambda record: record["label"], num_classes=2)
    file = tmp_path / "run" / "uncertainty_set.json"
    evaluator = UncertaintyEvaluator(reader, file)
    probability = torch.tensor([[0.9, 0.6, 0.5], [0.45, 0.3, 0.5]])  # of class 0: 2 of 4 wrong
    output = {
        "sem_seg": torch.stack([probability, 1 - probability]).log(),
        "uncertainty": torch.tensor([[-4.0, -1.0, 9.0], [-2.0, -3.0, 9.0]]),
        "log_variance": torch.tensor([[4.0, 1.0, 9.0], [2.0, 3.0, 9.0]]),
    }
    unlabeled = {"file_name": "b.png", "label": np.full((2, 3), 255, np.uint8)}
    inputs = [{"file_name": "a, b.png", "label": label}, unlabeled]
    evaluator.process(inputs, [output, output])
    with caplog.at_level("INFO", "pppc"):
        found = evaluator.evaluate()
    results = found["uncertainty"]
    assert "| prototypes    |   75.00 |" in caplog.text  # Detectron2 prints no such keys
    # Wrong: (0, 1), said a at 0.6, is b; (1, 1), said b at 0.7, is a.
    assert results["AUROC-prototypes"] == pytest.approx(75)
    assert results["AUROC-variance"] == pytest.approx(25)
    assert results["AUROC-confidence"] == pytest.approx(50)
    assert results["AUROC-entropy"] == pytest.approx(50)
    assert results["AURC-none"] == pytest.approx(50)
    of_label = np.array([0.9, 0.4, 0.55, 0.3])  # the probabilities of the labels, of two classes
    assert results["Brier"] == pytest.approx(100 * (2 * (1 - of_label) ** 2).mean(), rel=1e-5)
    assert results["NLL"] == pytest.approx(-np.log(of_label).mean(), rel=1e-5)
    # Confidences 0.9, 0.6, 0.55, 0.7, each a bin of its own.
    assert results["ECE"] == pytest.approx(100 * (0.1 + 0.6 + 0.45 + 0.7) / 4, rel=1e-5)
    assert results["AURC-perfect"] == pytest.approx(100 * (1 / 3 + 2 / 4) / 4)
    # All are near another class.
    assert found["uncertainty-edges"] == results and "uncertainty-inside" not in found
    written = json.loads(file.read_text())
    assert written["measures"]["uncertainty"] == results
    bins = written["reliability"]["confidence"]
    assert bins["accuracy"] == [1, 0, 0, 1] and bins["share"] == [0.25] * 4
    np.testing.assert_allclose(bins["confidence"], [0.55, 0.6, 0.7, 0.9], rtol=1e-6)
    assert written["risk_coverage"]["coverage"] == [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(written["risk_coverage"]["prototypes"], [0, 0.5, 1 / 3, 0.5])
    (row,) = csv.DictReader(file.with_suffix(".csv").open())
    assert row["file"] == "a, b.png" and float(row["ECE"]) == results["ECE"]
    assert file.with_suffix(".svg").read_text().rstrip().endswith("</svg>")
    evaluator.evaluate()  # of another command: what is there stays
    assert (tmp_path / "run" / "uncertainty_set_2.json").is_file()


def test_edges_are_apart_from_the_inside():
    label = np.zeros((12, 12), np.uint8)
    label[:, 6:], label[0] = 1, 255
    output = {"sem_seg": torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(0))}
    evaluator = UncertaintyEvaluator(SimpleNamespace(label_of=lambda record: label, num_classes=2))
    evaluator.process([{"file_name": "a.png"}], [output])
    found = evaluator.evaluate()
    wrong = (output["sem_seg"].argmax(0).numpy() != label) & (label < 2)
    columns = np.arange(12)
    edges = (label < 2) & (columns >= 3) & (columns < 9)  # the third pixel from the other class
    for group, part in (("edges", edges), ("inside", (label < 2) & ~edges)):
        share = 100 * wrong[part].mean()
        assert found[f"uncertainty-{group}"]["AURC-none"] == pytest.approx(share)
    assert "AUROC-prototypes" not in found["uncertainty"]  # there are none
