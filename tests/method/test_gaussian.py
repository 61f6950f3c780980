"""Scores between Gaussians and their products."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from pppc.method import gaussian
from pppc.method.gaussian import (
    SCORES,
    mutual_likelihood_score,
    wasserstein_score,
)

GOLDEN = REPOSITORY / "tests/golden"


def random_gaussians(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(count, dim, generator=generator) for _ in range(2)]
    return [tensor.double().requires_grad_() for tensor in draw]


def score_by_definition(mean_a, log_var_a, mean_b, log_var_b):
    distance = F.normalize(mean_a, dim=1)[:, None] - F.normalize(mean_b, dim=1)[None]
    total = log_var_a.exp()[:, None] + log_var_b.exp()[None]
    return -0.5 * (distance**2 / total + total.log()).mean(-1)


def published():
    """The scores of published code, and the means and log-variances that they are of."""
    golden = np.load(GOLDEN / "scores.npz")
    inputs = ("mu_pix", "logvar_pix", "mu_proto", "logvar_proto")
    return golden, [torch.from_numpy(golden[key]) for key in inputs]


@pytest.mark.parametrize(
    ("score", "name"),
    [
        ("mutual_likelihood", "elk"),
        ("bhattacharyya", "bhattacharyya"),
        ("kullback_leibler", "kl"),
        ("jensen_shannon", "js"),
    ],
)
def test_scores_of_published_code(score, name):
    golden, inputs = published()
    np.testing.assert_allclose(SCORES[score](*inputs), golden[name], rtol=1e-4, atol=1e-6)


def test_score_of_prcl_takes_the_head_s_output_as_the_variance():
    golden = np.load(GOLDEN / "prcl_mls.npz")
    inputs = [torch.from_numpy(golden[key]) for key in ("mu_pix", "mu_proto")]
    log_vars = [torch.from_numpy(golden[key]).log() for key in ("var_pix", "var_proto")]
    score = mutual_likelihood_score(inputs[0], log_vars[0], inputs[1], log_vars[1])
    np.testing.assert_allclose(score, golden["mls"], rtol=1e-4, atol=1e-6)


def test_wasserstein_score_is_the_distance_and_not_what_was_published():
    golden, inputs = published()
    score = wasserstein_score(*inputs).numpy()
    mean_a, log_var_a, mean_b, log_var_b = (tensor.double().numpy() for tensor in inputs)
    mean_a = mean_a / np.linalg.norm(mean_a, axis=1, keepdims=True)
    mean_b = mean_b / np.linalg.norm(mean_b, axis=1, keepdims=True)
    root = np.exp(log_var_a / 2)[:, None] - np.exp(log_var_b / 2)[None]
    expected = -((mean_a[:, None] - mean_b[None]) ** 2 + root**2).mean(-1)
    np.testing.assert_allclose(score, expected, rtol=1e-5)
    assert np.abs(score - golden["wasserstein_as_coded"]).max() > 0.1


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_prefers_the_pixel_s_own_prototype(name):
    """Of Gaussians of equal variance; and its gradient is that of finite differences."""
    mean, log_var = (tensor.detach() for tensor in random_gaussians(6, 8, seed=3))
    log_var = log_var[:1].expand(6, 8)
    scores = SCORES[name](mean, log_var, mean, log_var)
    assert scores.argmax(dim=1).tolist() == list(range(6))

    mean.requires_grad_()
    target, direction = mean[[1]].detach(), torch.linspace(-1, 1, 8, dtype=torch.float64)

    def value(position):
        return SCORES[name](position, log_var[:1], target, log_var[:1]).sum()

    (gradient,) = torch.autograd.grad(value(mean[:1]), mean)
    step = 1e-2 * direction
    difference = value(mean[:1] + step) - value(mean[:1] - step)
    assert difference.item() == pytest.approx(2 * (gradient[0] @ step).item(), rel=1e-2)


@pytest.mark.parametrize("rows", [7, 3])
def test_gradients_of_all_inputs_are_those_of_the_definition(rows, monkeypatch):
    monkeypatch.setattr(gaussian, "BLOCK_ELEMENTS", {"cpu": 5 * rows})
    inputs = random_gaussians(7, 5, seed=0) + random_gaussians(3, 5, seed=1)
    weight = torch.randn(7, 3, generator=torch.Generator().manual_seed(2))
    expected = torch.autograd.grad((weight * score_by_definition(*inputs)).sum(), inputs)
    scores = mutual_likelihood_score(*inputs)
    torch.testing.assert_close(scores, score_by_definition(*inputs), check_dtype=False)
    actual = torch.autograd.grad((weight * scores).sum(), inputs)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
