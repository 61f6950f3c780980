"""The choice of the target crop."""

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pppc.method.ambiguity_crop import (
    choose_crop,
    class_ambiguity_weights,
    crop_score,
    standardized_ambiguity,
)

GOLDEN = REPOSITORY / "tests/golden"


@pytest.fixture(scope="module")
def published():
    with np.load(GOLDEN / "ambiguity_crop.npz") as arrays:
        return dict(arrays)


def test_class_weights_of_published_code(published):
    log_var = torch.from_numpy(published["proto_sigma_mean"])[:, None].expand(19, 8)
    everything = class_ambiguity_weights(log_var, temperature=0.01, top_k=19)
    np.testing.assert_allclose(everything, published["softmax_t001"], rtol=1e-4, atol=1e-6)
    weights = class_ambiguity_weights(log_var, temperature=0.01, top_k=10)
    expected = np.zeros(19)
    expected[published["top10_idx"]] = published["top10_val"]
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-6)


def test_crop_scores_and_choice_of_published_code(published):
    log_var = torch.from_numpy(published["proto_sigma_mean"])[:, None]
    weights = class_ambiguity_weights(log_var, temperature=0.01, top_k=10)
    label = torch.from_numpy(published["seg"])
    boxes = published["gta_boxes_y1y2x1x2"]
    scores = [crop_score(label[y1:y2, x1:x2], weights) for y1, y2, x1, x2 in boxes]
    np.testing.assert_allclose(scores, published["gta_scores"], rtol=1e-4, atol=1e-6)
    assert boxes[int(np.argmax(scores))].tolist() == published["gta_best"].tolist()


def test_labels_outside_the_classes_count_nothing():
    label = torch.tensor([[0, 1, 255], [-1, 2, 1]])
    assert crop_score(label, torch.tensor([1.0, 10.0])) == 21.0


def test_chosen_crop_is_the_first_best_of_the_boxes_drawn():
    """Against counting by hand; with few classes and large boxes, equal scores do occur."""
    weights = torch.tensor([0.0, 1.0, 0.5])
    for seed in range(20):
        label = torch.randint(3, (7, 9), generator=torch.Generator().manual_seed(seed))
        draw = torch.Generator().manual_seed(100 + seed)
        best_score = -1.0
        for _ in range(6):
            top, left = (int(torch.randint(n, (), generator=draw)) for n in (7 - 4 + 1, 9 - 6 + 1))
            pixels = label[top : top + 4, left : left + 6].flatten().tolist()
            score = sum((0.0, 1.0, 0.5)[pixel] for pixel in pixels)
            if score > best_score:
                best, best_score = (top, left), score
        chosen = choose_crop(label, weights, (4, 6), 6, torch.Generator().manual_seed(100 + seed))
        assert chosen == best


def test_without_weights_the_crop_is_uniformly_random():
    label = torch.zeros(6, 5, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    corners = [choose_crop(label, torch.zeros(2), (4, 3), 4, generator) for _ in range(900)]
    counts = torch.zeros(3, 3)
    for corner in corners:
        counts[corner] += 1
    assert counts.sum() == 900
    assert ((counts - 100).abs() < 40).all()  # 4 standard deviations of the 9 places


def test_whole_image_and_too_large_a_crop():
    label, generator = torch.zeros(4, 6, dtype=torch.long), torch.Generator()
    assert choose_crop(label, torch.ones(1), (4, 6), 3, generator) == (0, 0)
    with pytest.raises(ValueError, match="crop of 4x7.*image of 4x6"):
        choose_crop(label, torch.ones(1), (4, 7), 3, generator)


def test_standardized_weights_do_not_depend_on_scale_and_leave_unseen_classes_out():
    log_var = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    seen = torch.tensor([True, True, False, True, True, True])
    weights = class_ambiguity_weights(standardized_ambiguity(log_var, seen), 0.01, 6)
    assert weights[2] == 0
    assert weights.sum() == pytest.approx(1)

    ambiguity = log_var.mean(1)[seen].double().numpy()
    scores = 0.03 * (ambiguity - ambiguity.mean()) / ambiguity.std(ddof=1) / 0.01
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(weights[seen], expected, rtol=1e-4)

    scaled = standardized_ambiguity(1e-3 * log_var - 7, seen)
    torch.testing.assert_close(class_ambiguity_weights(scaled, 0.01, 6), weights, rtol=1e-3, atol=0)


@pytest.mark.parametrize("classes_seen", [0, 1])
def test_fewer_than_two_classes_seen_give_no_weight(classes_seen):
    seen = torch.arange(5) < classes_seen
    ambiguity = standardized_ambiguity(torch.arange(20.0).view(5, 4), seen)
    assert torch.equal(class_ambiguity_weights(ambiguity, 0.01, 3), torch.zeros(5))
