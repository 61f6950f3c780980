"""From a checkpoint to a prediction: one way, checked everywhere alike."""

import runpy
import sys

import cv2
import numpy as np
import pppc
import pytest
import torch
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog
from pppc.data import mapper
from pppc.data.catalog import model_metadata
from pppc.data.mapper import TestMapper
from pppc.errors import InputError
from pppc.prediction.predictor import _spans
from tiny_run import OPTIONS, demo_config, run_folder


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_a_run_s_folder_predicts_as_evaluation_does(image_format, datasets_root, tmp_path):
    folder = run_folder(tmp_path, "INPUT.FORMAT", image_format)
    file = DatasetCatalog.get("cityscapes_val")[0]["file_name"]
    model = pppc.load(folder)
    result = model.predict(file)
    (output,) = model.model([TestMapper(model.cfg)({"file_name": file})])
    probability = output["sem_seg"].softmax(0)
    assert result.labels.shape == result.confidence.shape == (64, 128)
    np.testing.assert_array_equal(result.labels, probability.argmax(0))
    np.testing.assert_allclose(result.confidence, probability.amax(0), rtol=1e-5)
    np.testing.assert_array_equal(result.uncertainty, output["uncertainty"])
    assert result.names == list(model_metadata(model.cfg).stuff_classes)
    drawn = result.draw()  # beside a legend
    assert drawn.mode == "RGB" and drawn.width > 128 and drawn.height >= 64
    # A picture is the same as its file, and a checkpoint as its folder.
    pixels = cv2.imread(file)[:, :, ::-1]
    again = pppc.load(folder / "model_final.pth").predict(pixels)
    np.testing.assert_array_equal(again.labels, result.labels)
    np.testing.assert_array_equal(again.image, pixels)
    assert torch.equal(model(file)["sem_seg"], output["sem_seg"])


def test_a_checkpoint_tells_its_classes_where_its_data_sets_are_not_at_hand(tmp_path, monkeypatch):
    run_folder(tmp_path, method="dacs")

    def missing(cfg):
        raise InputError("no data set is named so")

    monkeypatch.setattr("pppc.checkpoints.checkpointer.model_metadata", missing)
    model = pppc.load(tmp_path)
    assert model.names[:2] == ["road", "sidewalk"]
    assert model.colors[:2] == [[128, 64, 128], [244, 35, 232]]
    assert model.predict(np.zeros((40, 60, 3), np.uint8)).uncertainty is None
    file = tmp_path / "model_final.pth"
    content = torch.load(file)
    del content["class_names"], content["class_colors"]  # an older file
    torch.save(content, file)
    model = pppc.load(tmp_path)
    assert model.names[18] == "class 18" and len(model.names) == len(model.colors) == 19


@pytest.mark.parametrize("length", [1, 64, 65, 100, 113, 500])
def test_windows_cover_each_pixel_once_and_overlap_by_a_quarter(length):
    spans = _spans(length, 64)
    assert [i for _, kept in spans for i in range(length)[kept]] == list(range(length))
    for seen, kept in spans:
        assert seen.stop - seen.start == min(length, 64)
        assert kept.start - seen.start >= 8 or kept.start == seen.start == 0
        assert seen.stop - kept.stop >= 8 or kept.stop == seen.stop == length


def test_large_images_are_predicted_in_windows(tmp_path, monkeypatch):
    model = pppc.load(run_folder(tmp_path, "TEST.WINDOW", 100))
    image = np.random.default_rng(0).integers(0, 256, (60, 150, 3), np.uint8)
    windows = model.predict(image)
    first, last = model.predict(image[:, :100]), model.predict(image[:, 50:])
    for name in ("labels", "confidence", "uncertainty"):
        halves = getattr(first, name)[:, :75], getattr(last, name)[:, 25:]
        np.testing.assert_array_equal(getattr(windows, name), np.concatenate(halves, 1))
    monkeypatch.setattr(mapper, "MAX_SCORED_PIXELS", 60 * 100 // 4)
    bounded = model.predict(image)
    assert bounded.labels.shape == bounded.uncertainty.shape == (60, 150)
    assert (bounded.labels == windows.labels).mean() > 0.9
    np.testing.assert_allclose(bounded.confidence.mean(), windows.confidence.mean(), rtol=0.01)


def test_views_are_averaged_and_windows_of_several_images_predicted_together(tmp_path):
    folder = run_folder(tmp_path)
    model = pppc.load(folder)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 150, 3), np.uint8)
    both = model.predict(image, mirror=True, scales=(1, 1.5))
    flipped = np.ascontiguousarray(image[:, ::-1])
    larger = pppc.load(folder, ["INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 192])
    outputs = [
        output
        for network in (model, larger)
        for output in (network(image), {k: v.flip(-1) for k, v in network(flipped).items()})
    ]
    probability = sum(output["sem_seg"].softmax(0) for output in outputs) / 4
    assert (both.labels == probability.argmax(0).numpy()).mean() > 0.999  # but for equal ones
    np.testing.assert_allclose(both.confidence, probability.amax(0), rtol=1e-4)
    uncertainty = sum(output["uncertainty"] for output in outputs) / 4
    np.testing.assert_allclose(both.uncertainty, uncertainty, rtol=1e-5)
    # Images that stay as they are.
    as_they_are = pppc.load(folder, ["INPUT.MIN_SIZE_TEST", 0])
    assert as_they_are.mapper.resized(image)["image"].shape == (3, 60, 150)
    assert as_they_are.mapper.resized(image, 0.5)["image"].shape == (3, 30, 75)
    # Windows of images of two sizes, four at a time.
    images = [image, image[:40, :70], rng.integers(0, 256, (60, 150, 3), np.uint8)]
    calls = []
    model.model.student.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    parts = list(model.parts(enumerate(images), window=100, batch=4))
    assert [key for key, _ in parts] == [0, 0, 1, 2, 2]
    assert calls == [3, 1, 1]  # two windows and one, another size, the last one
    for key, part in parts:
        alone = model.predict(images[key], window=100)
        for name in ("confidence", "uncertainty"):
            whole, found = getattr(alone, name)[part.place], getattr(part, name)
            np.testing.assert_allclose(found, whole, rtol=1e-4)


def test_what_holds_no_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no checkpoint"):
        pppc.load(tmp_path)
    with pytest.raises(InputError, match="no checkpoint .*nothing.pth"):
        pppc.load(tmp_path / "nothing.pth")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not say how it was trained"):
        pppc.load(tmp_path / "other.pth")
    model = pppc.load(run_folder(tmp_path))
    with pytest.raises(InputError, match=r"float32 of shape \(4, 4\).*uint8, RGB"):
        model.predict(np.zeros((4, 4), np.float32))


def test_a_file_that_does_not_fit_is_refused_everywhere_with_the_same_line(
    datasets_root, tmp_path, monkeypatch, capsys
):
    weights = run_folder(tmp_path / "run") / "model_final.pth"
    opts = [*OPTIONS, "MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "24",
            "MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "out"]  # fmt: skip
    lines = set()
    for tool, *arguments in (
        ("train_net.py", "--eval-only"),
        ("export_model.py", "--output", tmp_path / "model.pt"),
        ("export_dark_zurich.py", "--output", tmp_path / "all.zip", "--num-images", "2"),
    ):
        command = [tool, *arguments, "--config-file", demo_config("pppc"), *opts]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(REPOSITORY / "tools" / tool), run_name="__main__")
        assert end.value.code == 2
        lines.add(capsys.readouterr().err.splitlines()[-1].removeprefix("error: "))
    with pytest.raises(InputError) as caught:
        pppc.load(weights, ["MODEL.SEM_SEG_HEAD.CONVS_DIM", 24])
    assert lines == {str(caught.value)} and "does not fit the configured model" in lines.pop()
