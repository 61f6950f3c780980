"""The Gaussian embedding against numbers of the published head, and its limits.

golden/proj_head.npz and golden/uncertainty_head.npz hold weights, inputs and outputs of the
published head, run once on CPU with random weights.
"""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from detectron2.layers import ShapeSpec
from pppc.method.gaussian import mutual_likelihood_score
from pppc.modeling.probabilistic_head import ProbabilisticHead, StageProbabilisticHead
from torch import Tensor

GOLDEN = REPOSITORY / "tests/golden"
TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
BRANCH_KEYS = ["fc1", "fc2", "gamma", "beta", "bn1.weight", "bn1.bias"] + [
    f"{norm}.{statistic}"
    for norm in ("bn1", "bn2")
    for statistic in ("running_mean", "running_var", "num_batches_tracked")
]


def _golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def _branch_state(published: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    return {key: published[prefix + key.replace(".", "_")] for key in BRANCH_KEYS}


@pytest.fixture
def published() -> dict[str, Tensor]:
    return _golden("proj_head")


@pytest.fixture
def head(published: dict[str, Tensor]) -> ProbabilisticHead:
    """Of the published weights: two convolutions for the mean, 32 to 32 to 16 channels."""
    state = {
        f"log_variance.{key}": value
        for key, value in _branch_state(published, "uncertain_head_").items()
    }
    for key, value in published.items():
        if key.startswith("convs_"):
            _, conv, layer, name = key.split("_", 3)
            state[f"mean.{3 * int(conv) + int(layer)}.{name}"] = value
    head = ProbabilisticHead(32, 16)
    head.load_state_dict(state, strict=True)
    return head


def test_published_outputs_in_training_then_evaluation(
    head: ProbabilisticHead, published: dict[str, Tensor]
) -> None:
    mean, log_var = head(published["x"])
    torch.testing.assert_close(mean, published["mu_train"], **TOLERANCE)
    torch.testing.assert_close(log_var, published["sigma_train"], **TOLERANCE)
    head.eval()  # on the running statistics of that one training pass
    mean, log_var = head(published["x"])
    torch.testing.assert_close(mean, published["mu_eval_after_one_train_step"], **TOLERANCE)
    torch.testing.assert_close(log_var, published["sigma_eval_after_one_train_step"], **TOLERANCE)


def test_published_log_variance_and_its_running_statistics() -> None:
    published = _golden("uncertainty_head")
    branch = ProbabilisticHead(32, 16).log_variance
    branch.load_state_dict(_branch_state(published), strict=True)

    def linear(weight: Tensor) -> Tensor:
        return F.conv2d(published["x"], weight)

    branch.eval()
    torch.testing.assert_close(branch(linear), published["out_eval"], **TOLERANCE)
    branch.train()
    torch.testing.assert_close(branch(linear), published["out_train"], **TOLERANCE)
    for norm in ("bn1", "bn2"):
        for statistic in ("running_mean", "running_var"):
            ours = getattr(getattr(branch, norm), statistic)
            torch.testing.assert_close(ours, published[f"after_{norm}_{statistic}"], **TOLERANCE)


def test_autocast_changes_scores_by_little_of_the_margin_between_classes(
    head: ProbabilisticHead, published: dict[str, Tensor]
) -> None:
    def scores() -> Tensor:
        mean, log_var = (x.movedim(1, -1).flatten(0, 2) for x in head(published["x"]))
        assert mean.dtype == log_var.dtype == torch.float32
        return mutual_likelihood_score(mean, log_var, prototypes, log_var[:4])

    head.eval()
    prototypes = torch.eye(4, 16)
    expected = scores()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        difference = scores() - expected
    assert 0 < difference.square().mean().sqrt() < 0.02 * expected.std(dim=1).mean()


@pytest.mark.parametrize("gamma", [1.0, 1e3])
def test_limits_and_finite_gradients(
    head: ProbabilisticHead, published: dict[str, Tensor], gamma: float
) -> None:
    torch.nn.init.constant_(head.log_variance.gamma, gamma)
    mean, log_var = head(published["x"])
    assert log_var.min() >= 0.99e-6 and log_var.max() <= 1
    assert mean.min() >= 0
    torch.testing.assert_close(mean.norm(dim=1), torch.ones(2, 5, 7))
    (mean[:, 0].sum() + log_var.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_a_graph_can_be_gone_through_backward_again(head, published) -> None:
    mean, log_var = head(published["x"])
    loss, parameters = (mean[:, 0] + log_var[:, 0]).sum(), list(head.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    running = head.log_variance.bn2.running_mean.clone()
    second = torch.autograd.grad(loss, parameters)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(head.log_variance.bn2.running_mean, running)
    assert (
        head.log_variance.bn2.num_batches_tracked
        == published["uncertain_head_bn2_num_batches_tracked"] + 1
    )


def test_stages_are_concatenated_at_the_finest_size() -> None:
    shapes = {
        "coarse": ShapeSpec(channels=3, stride=8),
        "fine": ShapeSpec(channels=5, stride=4),
    }
    head = StageProbabilisticHead(shapes, dim=4, mid_channels=6).eval()
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(2, 5, 6, 10, generator=generator)
    coarse = torch.randn(2, 3, 3, 5, generator=generator)
    plain = ProbabilisticHead(8, 4, mid_channels=6).eval()
    plain.load_state_dict(head.state_dict())
    mean, log_var = head({"coarse": coarse, "fine": fine, "other": None})
    resized = F.interpolate(coarse, (6, 10), mode="bilinear", align_corners=False)
    expected_mean, expected_log_var = plain(torch.cat([fine, resized], dim=1))
    torch.testing.assert_close(mean, expected_mean)
    torch.testing.assert_close(log_var, expected_log_var)
