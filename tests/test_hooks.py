"""The hooks by themselves."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from pppc.engine.hooks import PrototypeUpdate, ResumableBestCheckpointer
from pppc.prototypes import GaussianPrototypes
from pppc.structures import PixelBatch


@pytest.mark.parametrize("include_target", [False, True])
def test_prototypes_take_in_source_and_where_asked_confident_target_pixels(include_target):
    """A teacher that returns the image's channels as the mean; every pixel of variance 1."""

    def teacher(image, logits, embedding):
        return SimpleNamespace(mean=image, log_var=torch.zeros_like(image))

    prototypes = GaussianPrototypes(2, 3, "batch", "count_normalised", momentum=0.9, forgetting=1.0)
    update = PrototypeUpdate(SimpleNamespace(teacher=teacher, prototypes=prototypes), include_target)
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


def test_a_resumed_run_keeps_a_better_model_of_before(tmp_path):
    saved = []

    def evaluate(start: int, figures: dict[int, float]) -> None:
        def save(name: str, iteration: int) -> None:
            (tmp_path / f"{name}.pth").touch()
            saved.append(iteration)

        checkpointer = SimpleNamespace(save=save)
        best = ResumableBestCheckpointer(str(tmp_path), 10, checkpointer, "sem_seg/mIoU")
        with EventStorage(start) as storage:
            best.trainer = SimpleNamespace(start_iter=start, max_iter=100, storage=storage)
            best.before_train()
            for storage.iter, figure in figures.items():
                storage.put_scalar("sem_seg/mIoU", figure)
                best.trainer.iter = storage.iter
                best.after_step()

    evaluate(0, {9: 30.0, 19: 40.0})
    evaluate(20, {29: 35.0, 39: 41.0})
    assert saved == [9, 19, 39]
    evaluate(0, {9: 20.0})  # a new run in the same folder
    assert saved == [9, 19, 39, 9]
    (tmp_path / "model_best.json").write_text('{"other/mIoU": 90.0, "iteration": 9}')
    evaluate(10, {19: 5.0})  # evaluated on another set before
    assert saved == [9, 19, 39, 9, 19]
