"""Sampling and mapping: rare classes, epochs, and streams that can start anywhere."""

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg

from pppc import add_pppc_config
from pppc.data import build_train_loader
from pppc.data.mapper import collate
from pppc.data.sampling import (
    PairedLoader,
    RareClassDraw,
    SampleStream,
    ShuffledDraw,
    rare_class_probabilities,
)

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_rare_class_probabilities_are_the_published_ones(temperature):
    golden = json.loads((GOLDEN / "rcs_probs.json").read_text())
    expected = golden["result"][f"T{temperature}"]
    pixels = dict(enumerate(golden["pixel_count"]))
    classes, probabilities = rare_class_probabilities(pixels, temperature)
    assert classes == expected["classes"]
    np.testing.assert_allclose(probabilities, expected["prob"], rtol=1e-4)


def test_every_image_comes_once_per_epoch():
    draw = ShuffledDraw(size=7, seed=3)
    epochs = [[draw(p)[0] for p in range(e * 7, e * 7 + 7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_rare_class_draw_takes_images_that_show_the_class(caplog):
    counts = np.array([[90, 10, 0, 0], [100, 0, 0, 0], [98, 0, 2, 0]])  # 2: too rare; last: ignored
    with caplog.at_level(logging.WARNING):
        draw = RareClassDraw(counts, temperature=0.5, min_area=0.05, seed=0)
    assert "class 2" in caplog.text
    draws = [draw(position) for position in range(3000)]
    assert all(counts[image, train_id] > 0 for image, train_id in draws)
    assert {train_id: {i for i, t in draws if t == train_id} for train_id in (0, 1, 2)} == {
        0: {0, 1, 2},
        1: {0},
        2: {2},
    }
    share = Counter(train_id for _, train_id in draws)
    for train_id, probability in zip(draw.classes, draw.probabilities):
        assert share[train_id] / 3000 == pytest.approx(probability, abs=0.03)


def _loader(rank=0, world_size=1, workers=0):
    def mapper(record, train_id, seed):
        return {"image": torch.tensor([record["id"], seed % 1000], dtype=torch.float32)}

    records = [{"id": i} for i in range(5)]
    streams = [
        SampleStream(records, ShuffledDraw(5, seed=stream), mapper, stream + 9)
        for stream in range(2)
    ]
    return PairedLoader(streams, [4, 2], collate, workers, rank, world_size)


def _take(loader, count):
    iterator = iter(loader)
    return [[batch.image for batch in next(iterator)] for _ in range(count)]


def test_stream_that_starts_late_equals_one_that_ran_through():
    whole = _take(_loader(), 6)
    late = _loader(workers=2)
    late.start_at(4)
    for expected, actual in zip(whole[4:], _take(late, 2)):
        assert all(torch.equal(a, b) for a, b in zip(expected, actual))


def test_processes_share_each_batch():
    whole = _take(_loader(), 2)
    shares = [_take(_loader(rank, 2), 2) for rank in range(2)]
    for iteration in range(2):
        for stream in range(2):
            both = torch.cat([shares[rank][iteration][stream] for rank in range(2)])
            assert torch.equal(both, whole[iteration][stream])
    with pytest.raises(ValueError, match="IMS_PER_BATCH"):
        _loader(world_size=3)


def test_batches_of_the_demo_data(datasets_root):
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.merge_from_list(
        ["DATASETS.TRAIN", ("gta_train",), "DATASETS.TARGET", ("cityscapes_train_unlabeled",),
         "INPUT.CROP.SIZE", [48, 80], "INPUT.MIN_SIZE_TRAIN", (40,), "INPUT.MAX_SIZE_TRAIN", 96,
         "INPUT.TARGET.MIN_SIZE", 64, "INPUT.TARGET.MAX_SIZE", 128, "DATALOADER.NUM_WORKERS", 0]
    )  # fmt: skip
    source, target = next(iter(build_train_loader(cfg, seed=1)))
    assert source.image.shape == (2, 3, 48, 80) and source.label.shape == (2, 48, 80)
    # 40 rows after resizing: the rest is padding without labels.
    assert (source.label[:, 40:] == 255).all() and (source.label[:, :40] != 255).any()
    assert target.image.shape == (2, 3, 64, 128) and target.label is None
    assert source.image.max() > 1 and source.image.dtype == torch.float32

    cfg.INPUT.CROP.SIZE = [65, 80]
    with pytest.raises(ValueError, match=r"leftImg8bit\.png is 128x64 .* INPUT.TARGET.MIN_SIZE"):
        next(iter(build_train_loader(cfg, seed=1)))
