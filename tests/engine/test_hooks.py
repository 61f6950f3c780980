"""The hooks by themselves."""

from types import SimpleNamespace

import pytest
import torch
from pppc.engine.hooks import PrototypeUpdate
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
