"""Training under autocast follows training in float32."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.method.teacher import update_teacher
from pppc.pixel_batch import PixelBatch
from tiny_run import SMALL, default_config, loop_of

STEPS = 20


class Batches:
    """The same few pairs of batches over and over."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            label = torch.randint(5, (2, 8, 8), generator=generator)
            label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)
            noise = torch.rand(2, 3, 64, 64, generator=generator)
            image = 40 * label[:, None] + 60 * noise  # something to learn
            target = 255 * torch.rand(2, 3, 64, 96, generator=generator)
            yield PixelBatch(image, label), PixelBatch(target)


def fixed_probabilities(_, image: torch.Tensor, *__: object) -> torch.Tensor:
    """The same labels in every precision; a hardly trained teacher's turn over at any rounding."""
    number, _, height, width = image.shape
    rows, columns = torch.arange(height)[:, None] // 16, torch.arange(width) // 16
    label = ((rows + columns) % 5).expand(number, -1, -1)
    return torch.nn.functional.one_hot(label, 19).movedim(-1, 1).float()


def build(*opts: object) -> AdaptationLoop:
    cfg = default_config(
        *SMALL, "INPUT.CROP.SIZE", [64, 64], "SOLVER.MAX_ITER", 1000,
        "SOLVER.BASE_LR", 1e-3, "SOLVER.HEAD_LR_FACTOR", 1.0, "PPPC.CONTRAST.START_ITER", 0,
        "PPPC.CONTRAST.TEMPERATURE", 0.1, "PPPC.SELF_TRAINING.THRESHOLD", 0.06,
        "PPPC.SELF_TRAINING.IGNORE_TOP", 1, "PPPC.SELF_TRAINING.IGNORE_BOTTOM", 2,
        "DATASETS.TRAIN", ("gta_train",), "SEED", 0, *opts,
    )  # fmt: skip
    loop = loop_of(cfg, Batches())
    loop.pseudo_labeler.probabilities = fixed_probabilities
    return loop


def train(*opts: object) -> tuple[dict[str, list[float]], AdaptationLoop]:
    """The losses of each step."""
    loop = build(*opts)
    segmentor = loop.segmentor
    losses: dict[str, list[float]] = {}

    def note(found: dict[str, torch.Tensor], *_: object) -> None:
        for name, value in found.items():
            losses.setdefault(name, []).append(value.item())

    with pytest.MonkeyPatch.context() as patch, EventStorage() as loop.storage:
        patch.setattr("pppc.engine.adaptation_loop.write_metrics", note)
        for loop.iter in range(STEPS):
            update_teacher(segmentor.teacher, segmentor.student, 0.9 if loop.iter else 0.0)
            loop.before_step()
            loop.run_step()
    return losses, loop


@pytest.fixture(scope="module")
def exact():
    return train()[0]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_losses_of_twenty_steps_stay_near(exact, precision):
    losses, loop = train("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.TYPE", precision)
    assert exact["loss_segmentation_source"][-1] < 0.95 * exact["loss_segmentation_source"][0]
    assert losses.keys() == exact.keys()
    for name, expected in exact.items():
        expected, values = torch.tensor(expected), torch.tensor(losses[name])
        assert not torch.equal(values, expected), name
        difference = (values - expected).abs().mean() / expected.abs().mean()
        assert difference < 0.005, (name, difference)
    segmentor = loop.segmentor
    assert {p.dtype for p in segmentor.student.parameters()} == {torch.float32}
    assert {p.dtype for p in segmentor.teacher.parameters()} == {torch.float32}
    assert segmentor.prototypes.mean.dtype == torch.float32
    assert loop.grad_scaler.is_enabled() == (precision == "float16")


def test_resuming_restores_the_scale_where_one_was_kept():
    amp = ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.TYPE", "float16"]
    saved, resumed, exact = build(*amp), build(*amp), build()
    saved.grad_scaler.scale(torch.zeros(()))  # it makes its state at the first use
    saved.grad_scaler.update(1024.0)
    resumed.load_state_dict(saved.state_dict())
    assert resumed.grad_scaler.get_scale() == 1024.0
    resumed.load_state_dict(exact.state_dict())  # of a run in float32
    assert resumed.grad_scaler.get_scale() == 1024.0
