"""The teacher's update and its pseudo-labels."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pppc.method.teacher import (
    fuse_day_night,
    pixel_weights,
    pseudo_label,
    teacher_momentum,
    update_teacher,
    upsampled_probabilities,
)
from torch import nn

GOLDEN = REPOSITORY / "tests/golden"


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        nn.init.normal_(model[1].weight)
        model(torch.randn(2, 3, 4, 4))  # moves the running statistics
    return model


def test_momentum_of_published_code():
    golden = json.loads((GOLDEN / "ema_alpha.json").read_text())["alpha"]
    for iteration, expected in golden.items():
        assert teacher_momentum(int(iteration), 0.999) == pytest.approx(expected, rel=1e-12)


def test_parameters_are_averaged_and_running_statistics_copied():
    student, teacher = network(0), network(1)
    before, unchanged = copy.deepcopy(teacher), copy.deepcopy(student.state_dict())
    update_teacher(teacher, student, 0.9)
    for name, parameter in teacher.named_parameters():
        expected = 0.9 * before.get_parameter(name) + 0.1 * student.get_parameter(name)
        torch.testing.assert_close(parameter, expected)
    for name, buffer in teacher.named_buffers():
        assert torch.equal(buffer, student.get_buffer(name))
    torch.testing.assert_close(student.state_dict(), unchanged, rtol=0, atol=0)


def test_probabilities_are_upsampled_before_the_softmax():
    logits = torch.tensor([0.0, 8.0]).view(1, 1, 1, 2).expand(1, 2, 1, 2).clone()
    logits[:, 1] = 0
    probabilities = upsampled_probabilities(logits, (1, 4))
    expected = torch.tensor([0.0, 2.0, 6.0, 8.0]).sigmoid()  # pixel centers, not corners, aligned
    torch.testing.assert_close(probabilities[0, 0, 0], expected)
    torch.testing.assert_close(probabilities[0, 1, 0], 1 - expected)


def test_pseudo_labels_and_weights_of_published_code():
    golden = np.load(GOLDEN / "pseudo_weight.npz")
    label = torch.from_numpy(golden["label"]).long()
    maximum = torch.from_numpy(golden["prob_max"])
    probabilities = ((1 - maximum) / 18)[:, None].repeat(1, 19, 1, 1)
    probabilities.scatter_(1, label[:, None], maximum[:, None])

    pseudo = pseudo_label(probabilities, threshold=0.968)
    assert torch.equal(pseudo.label, label)
    assert torch.equal(pseudo.confidence, maximum)
    assert pseudo.confident_share.item() == pytest.approx(float(golden["ratio"]))
    weight = pixel_weights(pseudo, ignore_top=15, ignore_bottom=120)
    np.testing.assert_allclose(weight, golden["weight"], rtol=1e-6)
    np.testing.assert_array_equal(weight == 0, golden["target_contrast_label"] == 255)


def test_ignoring_no_row_and_more_rows_than_there_are():
    pseudo = pseudo_label(torch.rand(1, 2, 6, 3, generator=torch.Generator().manual_seed(0)), 0.0)
    assert torch.equal(pixel_weights(pseudo, 0, 0), torch.ones(1, 6, 3))
    assert torch.equal(pixel_weights(pseudo, 0, 8), torch.zeros(1, 6, 3))


def test_day_night_fusion_of_published_code():
    golden = {
        name: torch.from_numpy(array)
        for name, array in np.load(GOLDEN / "day_night_mix.npz").items()
    }
    day, night = golden["day"], golden["night"]
    static = (0, 1, 2, 3, 4, 8, 9, 10)
    fused = fuse_day_night(day, night, static)
    torch.testing.assert_close(fused, golden["mix_no_weight"], rtol=1e-4, atol=1e-6)
    weighted = fuse_day_night(day, night, static, golden["class_weight"])
    torch.testing.assert_close(weighted, golden["mix_weighted"], rtol=1e-4, atol=1e-6)
