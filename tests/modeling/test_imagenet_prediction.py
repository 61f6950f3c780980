"""Prediction with ImageNet prototypes: their probabilities, from a training to a file that predicts alone."""

import logging

import pytest
import timm
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pppc.checkpoints.trained_model import trained_model
from pppc.engine.hooks import BatchStatisticsAverage
from pppc.engine.trainer import Trainer
from pppc.errors import InputError
from pppc.modeling.meta_arch import PPPCSegmentor
from tiny_run import SMALL, default_config, run_folder, tiny_config
from torch.nn.functional import interpolate

USE, PREDICTION = "PPPC.IMAGENET_PROTOTYPES.USE", "PPPC.IMAGENET_PROTOTYPES.PREDICTION"
WITH = (USE, "always", PREDICTION, True)


@pytest.mark.parametrize(("teacher", "weight"), [(False, 1.0), (True, 1.0), (False, 0.25)])
def test_probabilities_are_the_network_s_times_theirs(teacher, weight):
    torch.manual_seed(0)
    opts = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "TEST.EVALUATE_TEACHER", teacher)
    model = build_model(default_config(*SMALL, *opts, *WITH)).eval()
    for parameter in model.teacher.parameters():
        parameter.data.mul_(1.5)
    torch.nn.init.normal_(model.imagenet_prototypes.sums)
    model.imagenet_prototypes.prediction_weight.fill_(weight)
    image = torch.randint(256, (3, 64, 96))
    inputs = {"image": image, "at_network_size": True}
    found = model([inputs])[0]["sem_seg"].softmax(0)
    network = model.teacher if teacher else model.student
    with torch.no_grad():
        own = network(image[None].float(), embedding=False).logits.softmax(1)
    theirs = model.imagenet_prototypes.scores(image[None].float())
    product = own * interpolate(theirs, own.shape[-2:], mode="bilinear").exp() ** weight
    torch.testing.assert_close(found, (product / product.sum(1))[0])
    model.imagenet_prototypes = None  # where there are none, as where they were not asked for
    torch.testing.assert_close(model([inputs])[0]["sem_seg"].softmax(0), own[0])


def weights(folder) -> tuple[object, ...]:
    return ("MODEL.WEIGHTS", str(folder / "model_final.pth"))


def encoder_of(model: PPPCSegmentor) -> dict[str, torch.Tensor]:
    return model.imagenet_prototypes.encoder.network.backbone.state_dict()


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_training_s_model_predicts_alone_and_goes_on_alone(datasets_root, tmp_path):
    """What the encoder began with is in the checkpoint; a training that starts from it begins anew."""
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", features_only=True)
    torch.save(model.state_dict(), tmp_path / "encoder.pth")
    imagenet = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    first = run_folder(tmp_path / "first", *WITH)
    content = torch.load(first / "model_final.pth")
    content["model"]["imagenet_prototypes.sums"].fill_(9.0)
    torch.save(content, first / "model_final.pth")
    source_only = ("PPPC.SELF_TRAINING.ENABLED", False, "PPPC.CONTRAST.ENABLED", False)
    opts = (
        USE, "auto", PREDICTION, True, *source_only, *weights(first), "SOLVER.MAX_ITER", 2,
        "PPPC.IMAGENET_PROTOTYPES.WEIGHTS", str(tmp_path / "encoder.pth"),
    )  # fmt: skip
    trainer = Trainer(tiny_config(tmp_path / "run", *opts))
    trainer.resume_or_load(False)
    trainer.train()
    segmentor = trainer._trainer.segmentor
    assert segmentor.imagenet_prototypes.sums.any()
    assert segmentor.imagenet_prototypes.sums.max() < 9
    assert_same(encoder_of(segmentor), imagenet)

    (tmp_path / "encoder.pth").unlink()
    again = Trainer(tiny_config(tmp_path / "run", *opts, "SOLVER.MAX_ITER", 3))
    again.resume_or_load(True)
    assert_same(again._trainer.segmentor.state_dict(), segmentor.state_dict())
    inputs = [{"image": torch.randint(256, (3, 64, 96))}]
    expected = segmentor.eval()(inputs)[0]["sem_seg"]
    after = tiny_config(tmp_path / "run", *opts, *weights(tmp_path / "run"))
    assert torch.equal(trained_model(after)(inputs)[0]["sem_seg"], expected)
    after.PPPC.IMAGENET_PROTOTYPES.PREDICTION = False
    student = trained_model(after)
    assert student.imagenet_prototypes is None
    assert not torch.allclose(student(inputs)[0]["sem_seg"], expected)
    # A training that starts from this model has its encoder, if no other one is named.
    start = ("PPPC.IMAGENET_PROTOTYPES.WEIGHTS", "", *weights(tmp_path / "run"))
    other = Trainer(tiny_config(tmp_path / "other", *opts, *start))
    other.resume_or_load(False)
    other.train()
    assert_same(encoder_of(other._trainer.segmentor), imagenet)


def test_a_run_goes_on_with_prototypes_if_it_had_them(datasets_root, tmp_path):
    """One that began where the encoder's weights were not known has none, nor has an older version's."""
    opts = (USE, "auto", "PPPC.IMAGENET_PROTOTYPES.WEIGHTS", str(tmp_path / "encoder.pth"))
    trainer = Trainer(tiny_config(tmp_path / "run", *opts, "SOLVER.MAX_ITER", 1))
    trainer.resume_or_load(False)
    trainer.train()
    assert trainer._trainer.segmentor.imagenet_prototypes is None
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "encoder.pth")
    again = Trainer(tiny_config(tmp_path / "run", *opts, "SOLVER.MAX_ITER", 2))
    again.resume_or_load(True)
    assert again._trainer.segmentor.imagenet_prototypes is None
    content = torch.load(tmp_path / "run/model_final.pth")
    content["trainer"]["_trainer"]["imagenet_prototypes"] = {"sums": torch.zeros(19, 8)}
    torch.save(content, tmp_path / "run/model_final.pth")
    with pytest.raises(InputError, match="no part of the model.*begin the run anew"):
        Trainer(tiny_config(tmp_path / "run", *opts, "SOLVER.MAX_ITER", 2)).resume_or_load(True)


def test_a_calibration_is_of_predictions_with_them_or_without(datasets_root, tmp_path, caplog):
    run = run_folder(tmp_path / "run", *WITH, "TEST.CALIBRATION", "source")
    content = torch.load(run / "model_final.pth")
    content["model"]["imagenet_prototypes.sums"].normal_()
    content["model"]["error_probability.temperature"].fill_(1.5)
    content["model"]["error_probability.imagenet_prototypes"].fill_(True)
    torch.save(content, run / "model_final.pth")
    for prediction in (True, False):
        opts = (*WITH, "TEST.CALIBRATION", "source", PREDICTION, prediction)
        assert trained_model(tiny_config(run, *opts, *weights(run))).calibrated == prediction
    assert "counts as not calibrated" in caplog.text


def test_processes_average_what_is_trained_alone(tmp_path):
    with_prototypes, without = (
        build_model(default_config(*SMALL, "MODEL.TIMM.NAME", "test_resnet", USE, use))
        for use in ("always", "never")
    )
    statistics = [BatchStatisticsAverage(model).statistics for model in (with_prototypes, without)]
    assert len(statistics[0]) == len(statistics[1]) > 0


def without(tmp_path, use: str) -> CfgNode:
    """A run without prototypes, to be predicted with them."""
    folder = run_folder(tmp_path / "run", USE, "never")
    return tiny_config(folder, USE, use, PREDICTION, True, *weights(folder))


def test_a_model_without_them_is_told_or_refused(datasets_root, tmp_path, caplog):
    with pytest.raises(
        InputError, match="holds no ImageNet prototypes: set PPPC.*PREDICTION False"
    ):
        trained_model(without(tmp_path, "always"))
    with caplog.at_level(logging.INFO):
        assert trained_model(without(tmp_path, "auto")).imagenet_prototypes is None
    assert "model_final.pth holds no ImageNet prototypes to predict with" in caplog.text
