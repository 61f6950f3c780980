"""The choice of the target crop."""

import math

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from pppc.method.ambiguity_crop import (
    AmbiguityCrop,
    choose_boxes,
    class_ambiguity_weights,
    class_entropy,
    crop_score,
    pixel_entropy,
)
from pppc.method.prototypes import GaussianPrototypes
from torch.distributions import Categorical

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


def test_chosen_box_is_the_first_best_of_those_drawn():
    """Against counting by hand; with few classes and large boxes, equal scores do occur."""
    weights = torch.tensor([0.0, 1.0, 0.5])
    for seed in range(20):
        label = torch.randint(3, (7, 9), generator=torch.Generator().manual_seed(seed))
        draw = torch.Generator().manual_seed(100 + seed)
        corners, scores = [], []
        for _ in range(6):
            top, left = (int(torch.randint(n, (), generator=draw)) for n in (7 - 4 + 1, 9 - 6 + 1))
            pixels = label[top : top + 4, left : left + 6].flatten().tolist()
            corners.append((top, left))
            scores.append(sum((0.0, 1.0, 0.5)[pixel] for pixel in pixels))
        (box,) = choose_boxes(
            [lambda box, label=label: crop_score(label[box], weights)],
            (7, 9), (4, 6), 6, torch.Generator().manual_seed(100 + seed),
        )  # fmt: skip
        assert box.corner == corners[scores.index(max(scores))]
        assert box.gain == pytest.approx(max(scores) / np.mean(scores))
        assert box.by_chance == (len(set(scores)) == 1)


def test_without_a_score_the_box_is_uniformly_random():
    generator = torch.Generator().manual_seed(0)
    boxes = choose_boxes([None] * 900, (6, 5), (4, 3), 4, generator)
    counts = torch.zeros(3, 3)
    for box in boxes:
        counts[box.corner] += 1
        assert box.by_chance and box.gain == 1
    assert ((counts - 100).abs() < 40).all()  # 4 standard deviations of the 9 places


def test_whole_image_and_too_large_a_box():
    whole = choose_boxes([lambda box: torch.zeros(())], (4, 6), (4, 6), 3, torch.Generator())
    assert whole == [((0, 0), True, 1.0)]
    with pytest.raises(ValueError, match="crop of 4x7.*image of 4x6"):
        choose_boxes([None], (4, 6), (4, 7), 3, torch.Generator())


def test_entropies_are_those_of_pytorch_s_distributions_whatever_the_scale():
    probabilities = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0))
    probabilities[0, 0] = 0
    expected = Categorical(probabilities.movedim(0, -1)).entropy()
    torch.testing.assert_close(pixel_entropy(3 * probabilities), expected)
    probabilities[4] = 0  # the class without a pixel
    label, of_pixels = probabilities.argmax(0), pixel_entropy(probabilities)
    of_classes = class_entropy(probabilities)
    for index in range(4):
        torch.testing.assert_close(of_classes[index], of_pixels[label == index].mean())
    assert of_classes[4] == 0


# The teacher is unsure of class 1, which fills the left, and of few pixels of class 0 at the right
# more so; the prototype of class 2, at the top, has the largest variance.
@pytest.mark.parametrize(
    ("criterion", "side"),
    [("class_variance", "top"), ("class_entropy", "left"), ("pixel_entropy", "right")],
)
def test_each_criterion_looks_where_its_name_says(criterion, side):
    probabilities = torch.tensor([0.98, 0.01, 0.01]).view(1, 3, 1, 1).repeat(1, 1, 24, 24)
    probabilities[..., :8] = torch.tensor([0.2, 0.7, 0.1]).view(3, 1, 1)
    probabilities[..., :8, :] = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    probabilities[:, :, 8:, 18:] = torch.tensor([0.34, 0.33, 0.33]).view(3, 1, 1)
    prototypes = GaussianPrototypes(3, 1)
    prototypes.num_updates += 1
    prototypes.log_var[2] = 0.01
    crop, generator = AmbiguityCrop((8, 8), 200, criterion=criterion), torch.Generator()
    ((row, column),) = crop(
        (24, 24), 1, prototypes, lambda: probabilities, generator.manual_seed(0)
    )
    found = {"top": row <= 1, "left": column <= 1, "right": column >= 15}
    assert found[side] and crop.statistics["by_chance"] == 0 and crop.statistics["gain"] > 1.5
    expected = Categorical(logits=torch.tensor([0.0, 0.0, 1.0])).entropy() / math.log(3)
    assert crop.statistics["weights_entropy"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_random_crop_labels_nothing_and_says_that_it_is_random():
    def never():
        raise AssertionError("the teacher was asked")

    prototypes, generator = GaussianPrototypes(3, 1), torch.Generator().manual_seed(0)
    for crop, of in (
        (AmbiguityCrop((8, 8), criterion="random"), prototypes),
        (AmbiguityCrop((8, 8), num_candidates=1), prototypes),
        (AmbiguityCrop((8, 8)), None),
    ):
        assert len(crop((12, 12), 2, of, never, generator)) == 2
        assert math.isnan(crop.statistics.pop("weights_entropy", math.nan))
        assert crop.statistics == {"by_chance": 1, "gain": 1}
    with pytest.raises(ValueError, match="criterion is 'entropy'"):
        AmbiguityCrop((8, 8), criterion="entropy")
