"""The hooks by themselves."""

from types import SimpleNamespace

import pytest
import torch
from pppc.engine.hooks import DACSMixing, PrototypeUpdate
from pppc.method.mixing import Gates, StrongAugmentation
from pppc.method.prototypes import GaussianPrototypes
from pppc.pixel_batch import PixelBatch


@pytest.mark.parametrize("include_target", [False, True])
def test_prototypes_take_in_source_and_where_asked_confident_target_pixels(include_target):
    """A teacher that returns the image's channels as the mean; every pixel of variance 1."""

    def teacher(image, logits, embedding):
        return SimpleNamespace(mean=image, log_var=torch.zeros_like(image))

    prototypes = GaussianPrototypes(2, 3, "batch", "count_normalized", momentum=0.9, forgetting=1.0)
    update = PrototypeUpdate(
        SimpleNamespace(teacher=teacher, prototypes=prototypes), include_target
    )
    source = PixelBatch(torch.full((1, 3, 2, 2), 1.0), torch.tensor([[[0, 0], [0, 255]]]))
    target = PixelBatch(
        torch.full((1, 3, 2, 2), 5.0),
        torch.tensor([[[0, 0], [1, 1]]]),
        confidence=torch.tensor([[[0.9, 0.2], [0.8, 0.1]]]),
    )
    update(source, target.confident(0.8, ignore_label=255))
    # Three source pixels and one target pixel of class 0; one target pixel of class 1.
    assert prototypes.mean[:, 0].tolist() == ([2.0, 5.0] if include_target else [1.0, 0.0])
    assert prototypes.seen.tolist() == [True, include_target]


def test_a_mix_of_boxes_shows_the_source_in_a_box_and_the_target_around_it():
    mixing = DACSMixing(StrongAugmentation(), SimpleNamespace(generator=torch.Generator()), "box")
    mixing.gates = Gates(jitter=False, blur=False)
    source = PixelBatch(torch.full((1, 3, 8, 6), 9.0), torch.ones(1, 8, 6, dtype=torch.long))
    target = PixelBatch(torch.zeros(3, 3, 8, 6), torch.zeros(3, 8, 6).long(), torch.zeros(3, 8, 6))
    mixed = mixing(source, target)
    assert mixed.image.shape == (3, 3, 8, 6)
    for image, label, weight in zip(mixed.image, mixed.label, mixed.weight):
        box = label.bool()
        assert 16 <= box.sum() <= 24 and box.sum() == box.any(0).sum() * box.any(1).sum()
        assert torch.equal(weight, box.float())
        assert torch.equal(image, 9 * box.float().expand(3, 8, 6))
