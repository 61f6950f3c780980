"""The distance to a frozen encoder's features, against loops over positions."""

import numpy as np
import pytest
import torch
from pppc.method.feature_distance import FeatureDistance, filled_positions


@pytest.mark.parametrize(("pixels", "counts"), [(12, True), (11, False)])
def test_a_position_counts_from_the_share_on(pixels, counts):
    label = torch.full((1, 4, 4), 255)
    label.view(-1)[:pixels] = 13
    assert filled_positions(label, [11, 13], (1, 1), 0.75).tolist() == [[[counts]]]
    label.view(-1)[6:pixels] = 11  # two things, neither of which fills it
    assert not filled_positions(label, [11, 13], (1, 1), 0.75).any()


def test_it_is_the_mean_norm_over_the_positions_of_things():
    draw = np.random.default_rng(0)
    label = draw.choice([0, 5, 6, 255], (2, 12, 18), p=[0.1, 0.8, 0.05, 0.05])
    label[0, :6] = 6
    features, reference = draw.normal(size=(2, 2, 7, 4, 3))
    distances = []
    for n in range(2):
        for i in range(4):
            for j in range(3):
                cell = label[n, 3 * i : 3 * i + 3, 6 * j : 6 * j + 6]
                if any((cell == thing).mean() >= 0.75 for thing in (5, 6)):
                    distances.append(np.linalg.norm(features[n, :, i, j] - reference[n, :, i, j]))
    assert 12 < len(distances) < 24
    ours = torch.tensor(features, requires_grad=True)
    encoder = torch.nn.Conv2d(3, 7, 1).double()  # of which nothing may be learnt
    seen = torch.zeros(2, 3, 4, 3, dtype=torch.float64)
    distance = FeatureDistance(
        lambda image: encoder(image) * 0 + torch.tensor(reference), [5, 6], loss_weight=0.5
    )
    loss = distance(ours, seen, torch.tensor(label))
    assert loss.item() == pytest.approx(0.5 * np.mean(distances), rel=1e-5)
    loss.backward()
    assert encoder.weight.grad is None
    moved = ours.grad.abs().sum(1) > 0
    assert torch.equal(moved, filled_positions(torch.tensor(label), [5, 6], (4, 3), 0.75))


def test_without_things_or_without_a_distance_there_is_no_gradient():
    features = torch.ones(1, 4, 2, 2, requires_grad=True)
    distance = FeatureDistance(lambda image: torch.ones(1, 4, 2, 2), [13])
    for train_id in (0, 13):
        loss = distance(features, torch.zeros(1, 3, 64, 64), torch.full((1, 64, 64), train_id))
        (gradient,) = torch.autograd.grad(loss, features)
        assert loss == 0 and not gradient.any()
