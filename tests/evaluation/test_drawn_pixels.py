"""The draw of pixels that label-free scores look at."""

import zlib

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from pppc.data import label_reader
from pppc.errors import InputError
from pppc.evaluation.drawn_pixels import PIXELS, PixelDraw
from tiny_run import tiny_config

SHARES = torch.full((19,), 1 / 19)


@pytest.fixture
def model(datasets_root, tmp_path):
    torch.manual_seed(0)
    prototypes = "PPPC.IMAGENET_PROTOTYPES"
    opts = (f"{prototypes}.USE", "always", f"{prototypes}.PREDICTION", True)
    model = build_model(tiny_config(tmp_path, *opts)).train()
    torch.nn.init.normal_(model.student.sem_seg_head.classifier[1].weight)
    torch.nn.init.normal_(model.imagenet_prototypes.sums)
    return model


def test_the_draw_is_the_same_whatever_else_happens_and_changes_nothing(model, tmp_path):
    cfg = tiny_config(tmp_path, "DATASETS.HELD_OUT", 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = PixelDraw(cfg, model, SHARES)(model)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.manual_seed(2)
    again = PixelDraw(cfg, model, SHARES)(model, former=[drawn.candidates])
    for name in ("probabilities", "strong", "teacher", "mixed", "before_mix", "alike", "margin"):
        assert torch.equal(getattr(drawn, name), getattr(again, name)), name
    assert np.array_equal(drawn.source, again.source) and drawn.held_out
    assert torch.equal(again.former, drawn.candidates) and again.votes.shape == (4, 3, PIXELS)
    assert not torch.equal(drawn.classes, drawn.teacher)  # another network
    assert (drawn.margin >= 0).all() and drawn.mixed is not None


def test_pixels_are_what_is_predicted_there(model, tmp_path):
    """Of each image's score map the positions of its draw, target and source."""
    cfg = tiny_config(tmp_path)
    draw = PixelDraw(cfg, model, SHARES)
    drawn = draw(model)
    model.eval()
    confusion = np.zeros((19, 19), int)
    assert not drawn.held_out
    for i, record in enumerate(draw.target + draw.source):
        sample = draw.mapper(record)
        scores = model([sample | {"at_network_size": True}])[0]["sem_seg"]
        seed = zlib.crc32(record["file_name"].rpartition("/")[2].encode())
        down, right = np.random.default_rng(seed).random((2, PIXELS))
        _, height, width = scores.shape
        seen = scores[:, (down * height).astype(int), (right * width).astype(int)]
        if i < len(draw.target):
            assert torch.allclose(drawn.probabilities[i], seen.softmax(0).T, atol=1e-6)
            model.evaluate_teacher = True
            labels = model([sample | {"at_network_size": True}])[0]["sem_seg"].argmax(0)
            model.evaluate_teacher = False
            at_draw = labels[(down * height).astype(int), (right * width).astype(int)]
            assert torch.equal(drawn.teacher[i], at_draw.byte())
            continue
        label = label_reader(cfg, "gta_train").label_of(record)
        there = label[(down * label.shape[0]).astype(int), (right * label.shape[1]).astype(int)]
        np.add.at(confusion, (there[there < 19], seen.argmax(0).numpy()[there < 19]), 1)
    assert np.array_equal(drawn.source, confusion)
    # The teacher labels by the ImageNet prototypes, whatever the model predicts by.
    model.prediction_prototypes = False
    other = draw(model)
    assert torch.equal(other.teacher, drawn.teacher)
    assert not torch.equal(other.classes, drawn.classes)


def test_an_image_that_cannot_be_read_is_an_error_or_left_out(model, tmp_path, monkeypatch):
    draw = PixelDraw(tiny_config(tmp_path), model, SHARES)
    draw.target[1] = draw.target[1] | {"file_name": "missing.png"}
    with pytest.raises(InputError, match="missing.png"):
        draw(model)
    draw.skip = True
    assert len(draw(model).probabilities) == 2
