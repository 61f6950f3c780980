"""Label-free scores against loops over pixels.

pytorch-adapt 0.0.83 gives the same figures for the entropy, information maximization and the soft
neighborhood density; it asks for libraries of 2022, so it is no part of the tests.
"""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pppc.evaluation.selection import SCORES, DrawnPixels, EnsembleAgreement, vote

IMAGES, PIXELS, CLASSES = 3, 110, 4


@pytest.fixture
def drawn() -> DrawnPixels:
    generator = torch.Generator().manual_seed(0)

    def classes(*shape):
        return torch.randint(CLASSES, shape, generator=generator).byte()

    shape = (IMAGES, PIXELS)
    return DrawnPixels(
        probabilities=torch.randn(*shape, CLASSES, generator=generator).mul(2).softmax(2),
        source_shares=torch.tensor([0.6, 0.3, 0.1, 0.0]),
        source=np.array([[8, 2, 0, 0], [1, 3, 0, 1], [0, 4, 4, 0], [0, 0, 0, 0]]),
        held_out=True,
        strong=classes(*shape),
        former=classes(4, *shape),
        teacher=classes(*shape),
        mixed=classes(*shape),
        before_mix=classes(*shape),
        alike=torch.rand(shape, generator=generator) < 0.3,
        margin=torch.rand(shape, generator=generator),
    )


def entropy_of(row) -> float:
    return -sum(p * math.log(p) for p in row if p > 0)


def mean_iou(first, second) -> float:
    """Over the classes that one of them has, in percent."""
    pairs = list(zip(first.flatten().tolist(), second.flatten().tolist()))
    ious = []
    for c in set(sum(pairs, ())):
        both = sum(pair == (c, c) for pair in pairs)
        ious.append(both / sum(c in pair for pair in pairs))
    return 100 * sum(ious) / len(ious)


def test_each_score_is_its_formula(drawn):
    rows = drawn.probabilities.double().flatten(0, 1).tolist()
    mean = [sum(row[c] for row in rows) / len(rows) for c in range(CLASSES)]
    entropy = sum(map(entropy_of, rows)) / len(rows)
    expected = {
        # IoU of the three labeled classes: 8 of 11, 3 of 11, 4 of 8.
        "source_miou": 100 * (8 / 11 + 3 / 11 + 4 / 8) / 3,
        "entropy": entropy,
        "information_maximization": entropy_of(mean) - entropy,
        "information_maximization_source": -sum(
            share * math.log(share / p) for share, p in zip((0.6, 0.3, 0.1), mean)
        )
        - entropy,
        "teacher_agreement": mean_iou(drawn.strong, drawn.teacher),
        "prototype_margin": float(drawn.margin.mean()),
    }
    densities = []
    for image in drawn.probabilities.double()[:, :100].tolist():
        for i, a in enumerate(image):
            cosines = [
                sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b)
                for j, b in enumerate(image)
                if j != i
            ]
            weights = [math.exp(cosine / 0.05) for cosine in cosines]
            densities.append(entropy_of([weight / sum(weights) for weight in weights]))
    expected["soft_neighborhood_density"] = sum(densities) / len(densities)
    kept = {True: [], False: []}
    for new, old, alike in zip(*map(torch.flatten, (drawn.mixed, drawn.before_mix, drawn.alike))):
        kept[bool(alike)].append(bool(new == old))
    expected["mixval"] = 50 * sum(sum(part) / len(part) for part in kept.values())
    votes = torch.cat([drawn.former, drawn.probabilities.argmax(2)[None], drawn.teacher[None]])
    most = [
        max(counts, key=counts.get)  # of equals the first
        for counts in (Counter(v.tolist()) for v in votes.flatten(1).T)
    ]
    expected["ensemble_agreement"] = mean_iou(drawn.classes, torch.tensor(most))
    assert {name: score(drawn) for name, score in SCORES.items()} == pytest.approx(expected)
    assert [name for name, score in SCORES.items() if score.sign < 0] == ["entropy"]
    assert vote(votes, CLASSES).flatten().tolist() == most


def test_what_a_model_lacks_has_no_score(drawn):
    without = replace(drawn, held_out=False, teacher=None, mixed=None, margin=None)
    lacking = [name for name, score in SCORES.items() if score(without) is None]
    assert lacking == ["source_miou", "mixval", "teacher_agreement", "prototype_margin"]
    assert len(without.votes) == 5


def test_a_class_that_vanishes_costs_what_the_source_has_of_it(drawn):
    """Of two sure models, the one that has lost a class of a tenth of the source's pixels is the worse."""

    def sure(classes):
        return replace(drawn, probabilities=torch.nn.functional.one_hot(classes, CLASSES).float())

    classes = torch.arange(IMAGES * PIXELS).view(IMAGES, PIXELS) % 10
    whole = sure(torch.where(classes < 6, 0, torch.where(classes < 9, 1, 2)))
    lost = sure(torch.where(classes < 6, 0, 1))
    score = SCORES["information_maximization_source"]
    assert score(whole) == pytest.approx(0, abs=1e-6)
    assert score(lost) == pytest.approx(-0.1 * math.log(0.1 / 1e-4) - 0.3 * math.log(0.3 / 0.4))
    assert SCORES["entropy"](whole) == SCORES["entropy"](lost) == 0
    assert EnsembleAgreement.of(lost.classes, whole.classes[None], CLASSES) < 70
