"""Mean IoU against a straightforward count, class by class."""

import numpy as np
import pytest
import torch
from PIL import Image

from pppc.class_map import class_map
from pppc.data.labels import LabelReader
from pppc.evaluation import MeanIoUEvaluator
from pppc.evaluation.mean_iou import confusion_matrix


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


def test_prediction_of_another_size_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"0\.png"):
        _evaluate(tmp_path, [np.zeros((4, 4), np.uint8)], [np.zeros((4, 5), np.int64)])


def test_class_map_is_the_first_highest_score():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-3, 4, (19, 30, 50), generator=generator).float()  # with many ties
    np.testing.assert_array_equal(class_map(scores), scores.numpy().argmax(0))
    np.testing.assert_array_equal(class_map(-torch.ones(2, 3, 4) + scores[:2, :3, :4] - 9),
                                  scores[:2, :3, :4].numpy().argmax(0))  # fmt: skip


def test_confusion_is_exact_beyond_float32():
    label = np.zeros((5000, 4000), np.uint8)  # more than 2 ** 24 pixels
    label[0, :3] = 1, 255, 7
    confusion = confusion_matrix(np.ones_like(label), label, 2)
    assert confusion.tolist() == [[0, 5000 * 4000 - 3], [0, 1]]
