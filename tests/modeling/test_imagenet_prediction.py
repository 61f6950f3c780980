"""Prediction with ImageNet prototypes: their probabilities, from a training to a file that predicts alone."""

import logging

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import trained_model
from pppc.engine.trainer import Trainer
from pppc.errors import InputError
from tiny_run import SMALL, default_config, run_folder, tiny_config
from torch.nn.functional import interpolate

USE, PREDICTION = "PPPC.IMAGENET_PROTOTYPES.USE", "PPPC.IMAGENET_PROTOTYPES.PREDICTION"
WITH = (USE, "always", PREDICTION, True)


@pytest.mark.parametrize("teacher", [False, True])
def test_probabilities_are_the_network_s_times_theirs(teacher):
    torch.manual_seed(0)
    opts = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "TEST.EVALUATE_TEACHER", teacher)
    model = build_model(default_config(*SMALL, *opts, *WITH)).eval()
    for parameter in model.teacher.parameters():
        parameter.data.mul_(1.5)
    torch.nn.init.normal_(model.imagenet_prototypes.sums)
    image = torch.randint(256, (3, 64, 96))
    inputs = {"image": image, "at_network_size": True}
    found = model([inputs])[0]["sem_seg"].softmax(0)
    network = model.teacher if teacher else model.student
    with torch.no_grad():
        own = network(image[None].float(), embedding=False).logits.softmax(1)
    theirs = model.imagenet_prototypes.scores(image[None].float())
    product = own * interpolate(theirs, own.shape[-2:], mode="bilinear").exp()
    torch.testing.assert_close(found, (product / product.sum(1))[0])
    model.imagenet_prototypes = None  # where there are none, as where they were not asked for
    torch.testing.assert_close(model([inputs])[0]["sem_seg"].softmax(0), own[0])


def weights(folder) -> tuple[object, ...]:
    return ("MODEL.WEIGHTS", str(folder / "model_final.pth"))


def test_a_training_s_model_predicts_alone_and_begins_no_other_one_s(datasets_root, tmp_path):
    """What the encoder began with is in the checkpoint; a training that starts from it has its own."""
    first = run_folder(tmp_path / "first", *WITH)
    model = build_model(tiny_config(first, *WITH))
    encoder = {
        key.removeprefix("student.backbone.model."): tensor
        for key, tensor in model.student.state_dict(prefix="student.").items()
        if key.startswith("student.backbone.model.")
    }
    torch.save(encoder, tmp_path / "encoder.pth")
    opts = (
        *WITH, "PPPC.IMAGENET_PROTOTYPES.WEIGHTS", str(tmp_path / "encoder.pth"), *weights(first),
        "SOLVER.MAX_ITER", 2, "PPPC.SELF_TRAINING.ENABLED", False, "PPPC.CONTRAST.ENABLED", False,
    )  # fmt: skip
    content = torch.load(first / "model_final.pth")
    content["model"]["imagenet_prototypes.sums"].fill_(9.0)
    torch.save(content, first / "model_final.pth")
    trainer = Trainer(tiny_config(tmp_path / "run", *opts))
    trainer.resume_or_load(False)
    own = trainer._trainer.segmentor.imagenet_prototypes
    assert not own.sums.any()
    backbone = own.encoder.network.backbone.model.state_dict()
    assert all(torch.equal(backbone[key], tensor) for key, tensor in encoder.items())
    trainer.train()
    assert own.sums.any() and all(
        torch.equal(own.encoder.network.backbone.model.state_dict()[key], tensor)
        for key, tensor in encoder.items()
    )
    (tmp_path / "encoder.pth").unlink()
    inputs = [{"image": torch.randint(256, (3, 64, 96))}]
    expected = trainer.model.eval()(inputs)[0]["sem_seg"]
    after = tiny_config(tmp_path / "run", *opts, *weights(tmp_path / "run"))
    assert torch.equal(trained_model(after)(inputs)[0]["sem_seg"], expected)
    after.PPPC.IMAGENET_PROTOTYPES.PREDICTION = False
    student = trained_model(after)
    assert student.imagenet_prototypes is None
    assert not torch.allclose(student(inputs)[0]["sem_seg"], expected)


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
