"""Mean IoU against a straightforward count, class by class."""

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from PIL import Image

from pppc.data.labels import LabelReader
from pppc.evaluation import MeanIoUEvaluator


def _evaluate(tmp_path, labels, predictions):
    metadata = Metadata(
        stuff_classes=list(LabelReader("camvid", False).space.class_names),
        label_reader=LabelReader("camvid", False),
    )
    evaluator = MeanIoUEvaluator(metadata)
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


def test_prediction_of_another_size_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"0\.png"):
        _evaluate(tmp_path, [np.zeros((4, 4), np.uint8)], [np.zeros((4, 5), np.int64)])
