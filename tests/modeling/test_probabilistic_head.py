"""The Gaussian embedding against numbers of the published head, and its limits.

golden/proj_head.npz holds weights, inputs and outputs of the published head, run once on CPU with
random weights.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from detectron2.layers import ShapeSpec
from pppc.modeling.probabilistic_head import ProbabilisticHead, StageProbabilisticHead
from torch import Tensor

TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
BRANCH_KEYS = ["fc1", "fc2", "gamma", "beta", "bn1.weight", "bn1.bias"] + [
    f"{norm}.{statistic}"
    for norm in ("bn1", "bn2")
    for statistic in ("running_mean", "running_var", "num_batches_tracked")
]


@pytest.fixture
def published() -> dict[str, Tensor]:
    with np.load(REPOSITORY / "tests/golden/proj_head.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


@pytest.fixture
def head(published: dict[str, Tensor]) -> ProbabilisticHead:
    """Of the published weights: two convolutions for the mean, 32 to 32 to 16 channels."""
    state = {
        f"log_variance.{k}": published[f"uncertain_head_{k.replace('.', '_')}"] for k in BRANCH_KEYS
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
