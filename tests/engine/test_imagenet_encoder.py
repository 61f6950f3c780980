"""The frozen encoder of the parts that look at one: which weights it has, and which it may not have."""

import pytest
import timm
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.engine.imagenet_encoder import begin_imagenet_prototypes, feature_distance
from pppc.engine.resume import setting_differences
from pppc.errors import InputError
from pppc.modeling.meta_arch import PPPCSegmentor
from pppc.pixel_batch import PixelBatch
from tiny_run import SMALL, default_config


def configuration(*opts: object) -> CfgNode:
    return default_config(
        *SMALL, "DATASETS.TRAIN", ("gta_train",), "PPPC.FEATURE_DISTANCE.LOSS_WEIGHT", 0.005, *opts
    )


@pytest.fixture(scope="module")
def segmentor() -> PPPCSegmentor:
    torch.manual_seed(0)
    return build_model(configuration())


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory) -> str:
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("encoder") / "encoder.pth"
    torch.save(timm.create_model("test_convnext").state_dict(), file)
    return str(file)


def batch() -> PixelBatch:
    image = 255 * torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    return PixelBatch(image, torch.full((2, 64, 96), 13))


def test_it_has_the_file_s_weights_whatever_the_student_has_learnt(segmentor, encoder_file):
    names = segmentor.state_dict().keys()
    cfg = configuration("MODEL.WEIGHTS", encoder_file)
    distance = feature_distance(cfg, segmentor)
    reference = distance.encoder(batch().image)
    assert reference.shape[-2:] == (2, 3) and not reference.requires_grad
    assert segmentor.state_dict().keys() == names  # no checkpoint holds this one
    assert distance.classes == [6, 7, *range(11, 19)]

    student = build_model(cfg)
    StrictCheckpointer(student).load(encoder_file, checkpointables=[])
    with torch.no_grad():
        as_it_began = student.student.eval()(batch().image, embedding=False, last_stages=1)
    assert torch.equal(reference, as_it_began.last_stages[0])
    losses = segmentor.train()(batch(), segmentation=False, feature_distance=distance)
    assert losses.keys() == {"loss_feature_distance"} and losses["loss_feature_distance"] > 0
    losses["loss_feature_distance"].backward()
    backbone = segmentor.student.backbone
    assert all(p.grad is not None for p in backbone.parameters())
    assert segmentor.student.sem_seg_head.classifier[1].weight.grad is None
    student.student.load_state_dict(segmentor.student.state_dict())
    resumed = feature_distance(cfg, student)  # as when a run goes on
    assert torch.equal(resumed.encoder(batch().image), reference)


def test_weights_that_are_not_known_to_be_imagenet_s_are_refused(segmentor, encoder_file, tmp_path):
    whole = str(tmp_path / "whole.pth")
    torch.save({"model": segmentor.state_dict()}, whole)
    for opts, told in (
        ((), "set PPPC.FEATURE_DISTANCE.WEIGHTS to their file"),
        (
            ("MODEL.WEIGHTS", whole),
            "whole.pth is a whole model.*the file of the encoder that it was",
        ),
    ):
        with pytest.raises(InputError, match=told):
            feature_distance(configuration(*opts), segmentor)
    advised = configuration("MODEL.WEIGHTS", whole, "PPPC.FEATURE_DISTANCE.WEIGHTS", encoder_file)
    assert feature_distance(advised, segmentor) is not None

    torch.save(timm.create_model("test_vit", patch_size=16).state_dict(), tmp_path / "vit.pth")
    vit = configuration(
        "MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.TIMM.NAME", "test_vit",
        "MODEL.WEIGHTS", str(tmp_path / "vit.pth"),
    )  # fmt: skip
    with pytest.raises(InputError, match="has no student.backbone.pyramid.*LOSS_WEIGHT 0"):
        feature_distance(vit, build_model(vit))


def test_prototypes_are_used_where_the_weights_are_known(segmentor, encoder_file):
    def found(use: str, *opts: object):
        cfg = configuration("PPPC.IMAGENET_PROTOTYPES.USE", use, *opts)
        model = build_model(cfg)
        begin_imagenet_prototypes(cfg, model)
        return model.imagenet_prototypes

    weights = ("PPPC.IMAGENET_PROTOTYPES.WEIGHTS", encoder_file)
    assert found("auto") is None and found("never", *weights) is None
    source_only = (*weights, "PPPC.SELF_TRAINING.ENABLED", False)
    assert found("always", *source_only) is None
    assert found("always", *source_only, "PPPC.IMAGENET_PROTOTYPES.PREDICTION", True) is not None
    two = (*weights, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2)
    assert found("auto", *two) is None and found("always", *two) is not None
    with pytest.raises(InputError, match="set PPPC.IMAGENET_PROTOTYPES.WEIGHTS to their file"):
        found("always")
    distance = feature_distance(configuration("MODEL.WEIGHTS", encoder_file), segmentor)
    last = torch.nn.functional.normalize(distance.encoder(batch().image), dim=1)
    for opts in (weights, ("MODEL.WEIGHTS", encoder_file)):
        prototypes = found("auto", *opts)
        maps = prototypes.encoder(batch().image)
        assert [tuple(m.shape[-2:]) for m in maps] == [(4, 6), (2, 3)]
        torch.testing.assert_close(torch.nn.functional.normalize(maps[-1], dim=1), last)
        assert prototypes.sums.shape == (19, sum(m.shape[1] for m in maps))


def test_classes_are_the_model_s_by_name(segmentor, encoder_file):
    def classes(*names: str) -> list[int]:
        cfg = configuration("MODEL.WEIGHTS", encoder_file)
        cfg.PPPC.FEATURE_DISTANCE.CLASSES = list(names)
        return feature_distance(cfg, segmentor).classes

    assert classes("Traffic_Light", "car") == [6, 13]
    with pytest.raises(InputError, match=r"'cra' is no class of the model: give car"):
        classes("bus", "cra")


def test_a_run_does_not_go_on_with_another_encoder():
    before = configuration("MODEL.WEIGHTS", "a.pth").dump()
    differences = setting_differences(before, configuration("MODEL.WEIGHTS", "b.pth"))
    assert differences == ["MODEL.WEIGHTS was 'a.pth' and is 'b.pth'"]
    own = ("PPPC.FEATURE_DISTANCE.WEIGHTS", "c.pth")
    before = configuration("MODEL.WEIGHTS", "a.pth", *own).dump()
    assert not setting_differences(before, configuration("MODEL.WEIGHTS", "b.pth", *own))
    # That of ImageNet prototypes is in the run's checkpoints.
    own += ("PPPC.IMAGENET_PROTOTYPES.USE", "auto")
    before = configuration("MODEL.WEIGHTS", "a.pth", *own).dump()
    assert not setting_differences(before, configuration("MODEL.WEIGHTS", "b.pth", *own))


def test_keys_that_do_nothing_are_told(caplog):
    cfg = configuration("PPPC.IMAGENET_PROTOTYPES.PREDICTION", True)  # USE is never
    with caplog.at_level("INFO"):
        begin_imagenet_prototypes(cfg, build_model(cfg))
    assert "USE is never, so its other keys do nothing" in caplog.text
