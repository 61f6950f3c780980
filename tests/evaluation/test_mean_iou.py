"""Mean IoU against a straightforward count, class by class."""

import logging
import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.utils import comm
from PIL import Image
from pppc.data import build_test_loader, label_reader, mapper
from pppc.data.labels import LabelReader
from pppc.errors import InputError
from pppc.evaluation import MeanIoUEvaluator, UncertaintyEvaluator
from pppc.evaluation.class_map import class_map
from pppc.evaluation.mean_iou import confusion_matrix
from tiny_run import SMALL, default_config, tiny_config
from torch._C._profiler import _EventType

MEANS = {"mIoU3": ["sky", "road", "pavement"], "mIoU1": ["car"]}


def _evaluate(tmp_path, labels, predictions):
    evaluator = MeanIoUEvaluator(LabelReader("camvid", False), MEANS)
    for i, (label, prediction) in enumerate(zip(labels, predictions)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(label).save(path)
        scores = torch.nn.functional.one_hot(torch.from_numpy(prediction), 11).permute(2, 0, 1)
        evaluator.process(
            [{"file_name": "image", "sem_seg_file_name": str(path)}], [{"sem_seg": scores}]
        )
    return evaluator.evaluate()["sem_seg"]


def test_iou_equals_a_count_of_sets(tmp_path):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 12, (20, 30)).astype(np.uint8) for _ in range(3)]  # 11: void
    labels = [np.where(label == 4, 3, label).astype(np.uint8) for label in labels]  # 4 is absent
    predictions = [np.where(rng.random((20, 30)) < 0.6, label % 11, 4) for label in labels]
    predictions = [prediction.astype(np.int64) for prediction in predictions]
    results = _evaluate(tmp_path, labels, predictions)

    truth, guess = np.concatenate(labels), np.concatenate(predictions)
    valid = truth != 11
    expected = {}
    for train_id, name in enumerate(LabelReader("camvid", False).space.class_names):
        actual, predicted = truth == train_id, (guess == train_id) & valid
        if actual.any():
            expected[name] = 100 * (actual & predicted).sum() / (actual | predicted).sum()
    assert "pavement" not in expected  # no label shows class 4, so no mean counts it
    for name, iou in expected.items():
        assert results[f"IoU-{name}"] == pytest.approx(iou)
    assert results["mIoU"] == pytest.approx(np.mean(list(expected.values())))
    assert results["pACC"] == pytest.approx(100 * (truth == guess)[valid].mean())
    assert "IoU-pavement" not in results
    assert results["mIoU3"] == pytest.approx((expected["sky"] + expected["road"]) / 2)
    assert results["mIoU1"] == pytest.approx(expected["car"])


def test_an_interval_is_that_of_draws_of_the_images(tmp_path):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, (8, 8)).astype(np.uint8) for _ in range(9)]
    right = np.linspace(0.2, 1, 9)
    predictions = [
        np.where(rng.random((8, 8)) < r, label, 0).astype(np.int64)
        for r, label in zip(right, labels)
    ]
    results = _evaluate(tmp_path, labels, predictions)
    drawn = []
    for _ in range(500):
        chosen = rng.integers(9, size=9)
        truth, guess = (
            np.concatenate([several[i] for i in chosen]) for several in (labels, predictions)
        )
        both = [(truth == c) & (guess == c) for c in range(3)]
        drawn.append(
            np.mean([b.sum() / ((truth == c) | (guess == c)).sum() for c, b in enumerate(both)])
        )
    assert results["mIoU-low"] == pytest.approx(100 * np.percentile(drawn, 2.5), abs=2)
    assert results["mIoU-high"] == pytest.approx(100 * np.percentile(drawn, 97.5), abs=2)
    assert "mIoU-low" not in _evaluate(tmp_path, labels[:1], predictions[:1])


def test_both_conventions_of_the_mean(tmp_path, caplog):
    """One class of three is predicted, but not labeled: it counts nowhere, or as 0."""
    label = np.array([[0, 0, 0, 0, 1, 1, 1, 1]], np.uint8)
    prediction = np.array([[0, 0, 0, 0, 1, 1, 1, 2]], np.int64)
    with caplog.at_level(logging.INFO, logger="pppc"):
        results = _evaluate(tmp_path, [label], [prediction])
    assert results["mIoU"] == pytest.approx(100 * (1 + 3 / 4) / 2)
    # As mmsegmentation does: intersection over union by class, nanmean over union > 0.
    histogram = lambda values: np.bincount(values.ravel(), minlength=11)  # noqa: E731
    intersection = histogram(prediction[prediction == label])
    with np.errstate(invalid="ignore"):
        iou = intersection / (histogram(label) + histogram(prediction) - intersection)
    assert results["mIoU-predicted"] == pytest.approx(100 * np.nanmean(iou))
    assert results["mIoU-predicted"] == pytest.approx(100 * (1 + 3 / 4 + 0) / 3)
    assert "mean of 2 of 11 classes" in caplog.text and "mIoU-predicted of 3" in caplog.text
    assert "count as 0 (pole)" in caplog.text
    assert {name for name in results if name.startswith("IoU-")} == {"IoU-sky", "IoU-building"}


def test_a_figure_of_one_class_is_named_and_one_of_none_is_refused(tmp_path, caplog):
    label = np.zeros((2, 2), np.uint8)
    with caplog.at_level(logging.WARNING, logger="pppc"):
        assert _evaluate(tmp_path, [label], [label.astype(np.int64)])["mIoU"] == 100
    assert "mean of 1 of 11 classes" in caplog.text
    with pytest.raises(InputError, match="every pixel of the test set is ignored"):
        _evaluate(tmp_path, [np.full((2, 2), 11, np.uint8)], [label.astype(np.int64)])


def test_prediction_of_another_size_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"0\.png"):
        _evaluate(tmp_path, [np.zeros((4, 4), np.uint8)], [np.zeros((4, 5), np.int64)])


def test_class_map_is_the_first_highest_score():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (19, 30, 50), generator=generator).float()  # with many ties
    np.testing.assert_array_equal(class_map(scores, "a.png"), scores.numpy().argmax(0))
    negative = scores[:2, :3, :4] - 10
    np.testing.assert_array_equal(class_map(negative, "a.png"), negative.numpy().argmax(0))
    scores[4:] = -torch.inf  # classes that are ruled out
    np.testing.assert_array_equal(class_map(scores, "a.png"), scores.numpy().argmax(0))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device"))]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("classes", "value"),
    [(slice(None), torch.nan), (0, torch.nan), (1, torch.nan), (2, torch.nan), (1, torch.inf),
     (slice(None), -torch.inf)],
)  # fmt: skip
def test_scores_that_are_no_numbers_tell_no_class(device, dtype, classes, value):
    scores = torch.randn(3, 4, 5).to(device, dtype)
    scores[classes, 2, 3] = value  # one pixel is enough
    with pytest.raises(InputError, match=r"street\.png: the network's scores are NaN or infinite"):
        class_map(scores, "street.png")


def test_confusion_is_exact_beyond_float32():
    label = np.zeros((5000, 4000), np.uint8)  # more than 2 ** 24 pixels
    label[0, :3] = 1, 255, 7
    confusion = confusion_matrix(np.ones_like(label), label, 2)
    assert confusion.tolist() == [[0, 5000 * 4000 - 3], [0, 1]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(40, 60), (31, 47), (9, 7)])
def test_scores_are_resized_class_by_class_to_the_same_class_map(size, device):
    scores = torch.randn(11, 10, 15, generator=torch.Generator().manual_seed(0)).to(device)
    whole = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    np.testing.assert_array_equal(class_map(scores, "a.png", size), whole.argmax(0).cpu().numpy())
    scores[3, 2, 2] = torch.nan
    with pytest.raises(InputError, match=r"a\.png"):
        class_map(scores, "a.png", (40, 60))


def image_and_label(folder, height, width):
    """A record of an image and its label, of 8 x 6 blocks of classes."""
    names = [str(folder / name) for name in ("image.png", "label.png")]
    label = np.random.default_rng(0).integers(0, 11, (6, 8)).astype(np.uint8)
    Image.new("RGB", (width, height)).save(names[0], compress_level=1)
    Image.fromarray(label).resize((width, height), Image.NEAREST).save(names[1], compress_level=1)
    return dict(zip(("file_name", "sem_seg_file_name"), names))


def test_an_image_of_12_megapixels_is_evaluated_without_its_scores_at_its_size(
    tmp_path, monkeypatch
):
    """Memory is counted where it is asked for: by PyTorch, and by NumPy, from whom OpenCV takes it."""
    cfg = default_config(
        *SMALL, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 11, "PPPC.CONTRAST.ENABLED", False,
        "PPPC.SELF_TRAINING.ENABLED", False, "INPUT.MIN_SIZE_TEST", 96, "INPUT.MAX_SIZE_TEST", 128,
        "TEST.UNCERTAINTY", False,
    )  # fmt: skip
    torch.manual_seed(0)
    model, reader = build_model(cfg).eval(), LabelReader("camvid", False)
    sample = mapper.TestMapper(cfg, reader)(image_and_label(tmp_path, 3000, 4000))
    tracemalloc.start()
    with torch.profiler.profile(profile_memory=True) as profiler:
        evaluator = MeanIoUEvaluator(reader)
        evaluator.process([sample], model([sample]))
    numpy_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    events = list(profiler.profiler.kineto_results.experimental_event_tree())
    torch_peak = 0
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag == _EventType.Allocation:
            torch_peak = max(torch_peak, event.extra_fields.total_allocated)
    assert numpy_peak + torch_peak < 12e6 * 4 * 4  # four classes' scores, of eleven
    assert evaluator.confusion.sum() == 3000 * 4000
    record, confusions = image_and_label(tmp_path, 300, 400), []
    for most in (mapper.MAX_SCORES, 1000):
        monkeypatch.setattr(mapper, "MAX_SCORES", most)
        sample, evaluator = mapper.TestMapper(cfg, reader)(record), MeanIoUEvaluator(reader)
        (output,) = model([sample])
        evaluator.process([sample], [output])
        confusions.append(evaluator.confusion)
    assert output["sem_seg"].shape[1] < 96 and (confusions[0] == confusions[1]).all()


def test_two_processes_share_a_test_set(demo_datasets, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(demo_datasets))
    cfg = tiny_config(tmp_path)
    model = build_model(cfg).eval()
    files, evaluators = [], []
    for rank, size in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda size=size: size)
        evaluators.append(MeanIoUEvaluator(label_reader(cfg, "cityscapes_val")))
        files.append([])
        for inputs in build_test_loader(cfg, "cityscapes_val"):
            evaluators[-1].process(inputs, model(inputs))
            files[-1].append(inputs[0]["file_name"])
    whole, first, second = files
    assert first + second == whole and len(first) == 2 and len(second) == 1
    gathered = [(one.confusion, one.of_images) for one in evaluators[1:]]
    monkeypatch.undo()
    expected = evaluators[0].evaluate()
    monkeypatch.setattr(comm, "gather", lambda own: gathered)
    assert evaluators[1].evaluate() == expected


def test_a_map_of_less_than_the_image_is_compared_with_the_whole_label(tmp_path, monkeypatch):
    """As of an image of more than MAX_SCORED_PIXELS where uncertainty is looked at, too."""
    monkeypatch.setattr(mapper, "MAX_SCORED_PIXELS", 80 * 60)
    reader = LabelReader("camvid", False)
    sample = mapper.TestMapper(image_format="RGB", min_size=32, max_size=64, label_reader=reader)(
        image_and_label(tmp_path, 300, 400)
    )
    assert (sample["height"], sample["width"]) == (60, 80)
    small = sample["sem_seg"][::5, ::5].long()
    scores = torch.nn.functional.one_hot(small, 11).permute(2, 0, 1).float()
    evaluator, uncertainty = MeanIoUEvaluator(reader), UncertaintyEvaluator(reader)
    maps = {"uncertainty": torch.rand(60, 80), "log_variance": torch.rand(60, 80)}
    for one in (evaluator, uncertainty):
        one.process([sample], [{"sem_seg": scores, **maps}])
    assert evaluator.confusion.sum() == 300 * 400
    assert evaluator.evaluate()["sem_seg"]["pACC"] > 97  # but for the blocks' corners
    ((_, pixels),) = uncertainty.images
    assert len(pixels["wrong"]) and not pixels["wrong"].any()
