"""A model of other classes as a start: all but the classifier, classes of equal name taken over."""

import json

import pytest
import torch
from conftest import REPOSITORY
from detectron2.modeling import build_model
from pppc import load_config
from pppc.checkpoints import read_weights
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.checkpoints.classes import match_classes
from pppc.data.train_ids import CAMVID_CLASSES, CITYSCAPES_CLASSES
from pppc.errors import InputError
from published_networks import MMSegSegFormer
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

CLASSIFIER = "sem_seg_head.classifier.1.weight"
OTHER = ("MODEL.WEIGHTS_OTHER_CLASSES", True)


def config(*opts: object, method: str = "pppc"):
    return load_config(
        REPOSITORY / f"configs/demo_gta_to_cityscapes_{method}.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.NAME", "SegFormerHead",
         "MODEL.SEM_SEG_HEAD.CONVS_DIM", 256, "MODEL.PROBABILISTIC_HEAD.DIM", 8, *opts],
    )  # fmt: skip


def camvid(*opts: object):
    return config("DATASETS.TRAIN", ("camvid_day_train",), "DATASETS.TARGET", (),
                  "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 11, *opts)  # fmt: skip


def start(cfg, path) -> nn.Module:
    torch.manual_seed(5)
    model = build_model(cfg)
    StrictCheckpointer(model, cfg=cfg).load(str(path))
    return model


def fresh(cfg) -> torch.Tensor:
    """The classifier as it begins."""
    torch.manual_seed(5)
    return build_model(cfg).student.state_dict()[CLASSIFIER]


def assert_rows(model, cfg, theirs: torch.Tensor, rows: dict[int, int]) -> None:
    ours, begin = model.student.state_dict()[CLASSIFIER], fresh(cfg)
    assert not torch.equal(theirs[0].flatten(), begin[0].flatten())
    for i, row in enumerate(ours):
        torch.testing.assert_close(
            row, theirs[rows[i]].reshape(row.shape) if i in rows else begin[i]
        )


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """Hugging Face's files of a SegFormer with 150 classes, four of them Cityscapes'."""
    folder = tmp_path_factory.mktemp("ade")
    names = [f"thing {i}" for i in range(150)]
    names[2], names[6], names[20], names[136] = "sky", "Road", "car", "traffic-light"
    labels = dict(enumerate(names))
    model = SegformerForSemanticSegmentation(
        SegformerConfig(id2label=labels, decoder_hidden_size=256)
    )
    model.save_pretrained(folder)
    return folder / "model.safetensors", model.decode_head.classifier.weight.detach()


def test_without_the_key_the_error_names_it_and_with_it_training_starts(segformer, caplog):
    path, classifier = segformer
    with pytest.raises(InputError, match="MODEL.WEIGHTS_OTHER_CLASSES True") as error:
        start(config(), path)
    assert "(150, 256, 1, 1)" in str(error.value)
    with caplog.at_level("INFO", "pppc"):
        model = start(config(*OTHER), path)
    rows = {CITYSCAPES_CLASSES.index(n): i for n, i in
            (("sky", 2), ("road", 6), ("car", 20), ("traffic light", 136))}  # fmt: skip
    assert_rows(model, config(), classifier, rows)
    assert (
        "150 classes. Taken over by name: road, traffic light, sky, car. Learnt anew: "
        in caplog.text
    )
    fuse = read_weights(str(path))["model"]["decode_head.linear_fuse.weight"]
    assert torch.equal(model.student.sem_seg_head.fuse.weight, fuse)


def test_where_no_class_is_named_all_but_the_classifier_is_taken(segformer, tmp_path, caplog):
    state = read_weights(str(segformer[0]))["model"]
    torch.save(state, tmp_path / "ade.pth")
    with caplog.at_level("INFO", "pppc"):
        model = start(config(*OTHER), tmp_path / "ade.pth")
    assert_rows(model, config(), segformer[1], {})
    anew = ", ".join(CITYSCAPES_CLASSES)
    assert f"does not name. Taken over by name: none. Learnt anew: {anew}" in caplog.text


@pytest.mark.parametrize("version", ["0.x", "1.x"])
def test_classes_that_mmsegmentation_names(version, tmp_path):
    names = ("sky", "wall")
    meta = {"CLASSES": names} if version == "0.x" else {"dataset_meta": {"classes": names}}
    theirs = MMSegSegFormer(classes=2)
    torch.save({"state_dict": theirs.state_dict(), "meta": meta}, tmp_path / "file.pth")
    cfg = config("MODEL.SEM_SEG_HEAD.NAME", "ConvSegFormerHead", *OTHER)
    rows = {CITYSCAPES_CLASSES.index("sky"): 0, CITYSCAPES_CLASSES.index("wall"): 1}
    classifier = theirs.decode_head.conv_seg.weight.detach()
    assert_rows(start(cfg, tmp_path / "file.pth"), cfg, classifier, rows)


@pytest.fixture(scope="module")
def camvid_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("camvid")
    cfg = camvid()
    model = build_model(cfg)
    nn.init.normal_(model.student.sem_seg_head.classifier[1].weight)
    model.teacher.load_state_dict(model.student.state_dict())
    model.prototypes.seen.fill_(True)
    StrictCheckpointer(model, str(folder), cfg=cfg).save("model_final")
    return folder / "model_final.pth", model


def test_a_checkpoint_of_this_project_names_its_classes(camvid_run, caplog):
    path, theirs = camvid_run
    assert torch.load(path, weights_only=True)["class_names"] == list(CAMVID_CLASSES)
    with pytest.raises(InputError, match="MODEL.WEIGHTS_OTHER_CLASSES True"):
        start(config(), path)
    model = start(config(*OTHER), path)
    rows = match_classes(CAMVID_CLASSES, CITYSCAPES_CLASSES)
    assert 3 < len(rows) < 11
    weight = theirs.student.state_dict()[CLASSIFIER]
    assert_rows(model, config(), weight, rows)
    assert torch.equal(
        model.student.sem_seg_head.fuse.weight, theirs.student.sem_seg_head.fuse.weight
    )
    assert not model.prototypes.seen.any()  # of classes, so learnt anew
    teacher = model.teacher.state_dict()[CLASSIFIER]
    assert all(torch.equal(teacher[i], weight[row]) for i, row in rows.items())


@pytest.mark.parametrize("trained", [False, True])
def test_the_same_classes_lose_nothing_by_the_key(trained, camvid_run):
    path, theirs = camvid_run
    model = build_model(camvid(*OTHER))
    StrictCheckpointer(model, cfg=camvid(*OTHER), trained=trained).load(str(path))
    for ours, expected in zip(
        model.state_dict().values(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, expected)


def test_as_many_but_other_classes_are_not_taken_for_the_model_s(camvid_run, tmp_path):
    content = torch.load(camvid_run[0], weights_only=True)
    names = content["class_names"]
    content["class_names"] = [names[1], names[0], *names[2:]]
    torch.save(content, tmp_path / "swapped.pth")
    with pytest.raises(
        InputError, match=rf"other classes: {names[1]} .here {names[0]}.*OTHER_CLASSES"
    ):
        start(camvid(), tmp_path / "swapped.pth")
    rows = {0: 1, 1: 0} | {i: i for i in range(2, 11)}
    model = start(camvid(*OTHER), tmp_path / "swapped.pth")
    assert_rows(model, camvid(), content["model"][f"student.{CLASSIFIER}"], rows)
    with pytest.raises(InputError, match="other classes") as error:
        StrictCheckpointer(build_model(camvid()), cfg=camvid(), trained=True).load(
            str(tmp_path / "swapped.pth")
        )
    assert "OTHER_CLASSES" not in str(error.value)  # it is to be used as it is


def test_names_of_another_number_are_none(segformer, tmp_path):
    """config.json of another file in the same folder."""
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "road", "1": "sky"}}))
    torch.save(read_weights(str(segformer[0]))["model"], tmp_path / "file.pth")
    assert_rows(start(config(*OTHER), tmp_path / "file.pth"), config(), segformer[1], {})


def test_weights_that_are_not_finite_are_refused(camvid_run, tmp_path):
    content = torch.load(camvid_run[0], weights_only=True)
    content["model"][f"student.{CLASSIFIER}"][3] = float("nan")
    torch.save(content, tmp_path / "nan.pth")
    with pytest.raises(InputError, match=rf"nan.pth: student.{CLASSIFIER} .*not finite"):
        start(camvid(), tmp_path / "nan.pth")
