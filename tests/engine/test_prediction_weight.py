"""How much ImageNet prototypes count in prediction: what source images choose, and that it is kept."""

import logging
from types import SimpleNamespace

import pytest
import timm
import torch
from pppc.checkpoints.trained_model import trained_model
from pppc.engine.prediction_weight import WEIGHTS, choose_prediction_weight
from pppc.engine.trainer import Trainer
from pppc.evaluation.drawn_pixels import PixelDraw
from tiny_run import run_folder, tiny_config

KEYS = "PPPC.IMAGENET_PROTOTYPES"


class Draw:
    """Pixels of class 0: by their margins to class 1 alone, and what the prototypes add to it."""

    def __init__(self, *margins: tuple[float, float]):
        self.alone, self.added = (torch.tensor(column) for column in zip(*margins))

    def outputs(self, model, of_source: bool) -> dict[str, torch.Tensor]:
        margin = self.alone + model.imagenet_prototypes.prediction_weight * self.added
        assert of_source
        scores = torch.stack([margin, torch.zeros_like(margin)], 1)
        return {"sem_seg": scores, "label": torch.zeros(len(margin), dtype=torch.long)}


@pytest.mark.parametrize(
    ("margins", "chosen"),
    [
        ([(-1.0, 3.0), (1.0, -1.5)], 0.5),  # right from a third on, wrong from two thirds on
        ([(-1.0, 1.5), (1.0, 1.0)], 1.0),
        ([(1.0, -1.5), (1.0, 1.0)], 0.0),  # of all that are as good the lowest
        ([(-1.0, 6.0), (1.0, -6.0), (1.0, -6.0)], 0.0),
    ],
)
def test_the_weight_of_the_highest_miou_is_chosen(margins, chosen):
    model = SimpleNamespace(
        imagenet_prototypes=SimpleNamespace(prediction_weight=torch.tensor(0.7))
    )
    assert choose_prediction_weight(model, Draw(*margins)) == chosen
    assert model.imagenet_prototypes.prediction_weight == torch.tensor(0.7)


def test_a_run_chooses_it_by_its_own_scores_and_keeps_it(datasets_root, tmp_path, caplog):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "encoder.pth")
    opts = (
        f"{KEYS}.USE", "always", f"{KEYS}.PREDICTION", True, "DATASETS.HELD_OUT", 2,
        f"{KEYS}.WEIGHTS", str(tmp_path / "encoder.pth"), "SOLVER.MAX_ITER", 2,
    )  # fmt: skip
    cfg = tiny_config(tmp_path / "run", *opts)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    with caplog.at_level(logging.INFO):
        trainer.train()
    model = trainer._trainer.segmentor
    (line,) = [r.getMessage() for r in caplog.records if "Weight of ImageNet" in r.getMessage()]
    kept = model.imagenet_prototypes.prediction_weight.item()
    assert kept in WEIGHTS and f"in prediction: {kept:g}. " in line
    # The scores of a weight are those that the model then predicts with.
    draw = PixelDraw(cfg, model, torch.zeros(19))
    scores = []
    for weight in (0.0, 0.5, 1.0):
        model.imagenet_prototypes.prediction_weight.fill_(weight)
        scores.append(draw.outputs(model, of_source=True)["sem_seg"])
    torch.testing.assert_close(scores[1], (scores[0] + scores[2]) / 2, rtol=1e-4, atol=1e-4)
    loaded = trained_model(
        tiny_config(tmp_path / "run", *opts, "MODEL.WEIGHTS", str(tmp_path / "run/model_final.pth"))
    )
    assert kept == (
        0 if loaded.imagenet_prototypes is None else loaded.imagenet_prototypes.prediction_weight
    )


def test_prototypes_that_do_not_count_are_not_computed(datasets_root, tmp_path):
    run = run_folder(tmp_path / "run", f"{KEYS}.USE", "always", f"{KEYS}.PREDICTION", True)
    content = torch.load(run / "model_final.pth")
    content["model"]["imagenet_prototypes.sums"].normal_()
    content["model"]["imagenet_prototypes.prediction_weight"].fill_(0)
    torch.save(content, run / "model_final.pth")
    opts = (f"{KEYS}.USE", "always", f"{KEYS}.PREDICTION", True)
    cfg = tiny_config(run, *opts, "MODEL.WEIGHTS", str(run / "model_final.pth"))
    assert trained_model(cfg).imagenet_prototypes is None
