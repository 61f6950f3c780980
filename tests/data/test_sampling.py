"""Sampling and mapping: rare classes, epochs, and streams that can start anywhere."""

import json
import logging
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.utils.events import EventStorage
from PIL import Image
from pppc.data import build_test_loader, build_train_loader, check_data, class_frequencies
from pppc.data.augmentation import RESIZING, CropOfSeveralClasses
from pppc.data.labels import LabelReader
from pppc.data.mapper import SourceMapper, TargetMapper, TestMapper, collate
from pppc.data.sampling import (
    MixedStream,
    PairedLoader,
    RareClassDraw,
    SampleStream,
    ShuffledDraw,
    rare_class_probabilities,
)
from pppc.engine import Trainer
from pppc.errors import InputError
from tiny_run import default_config, tiny_config

GOLDEN = REPOSITORY / "tests/golden"


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


@pytest.mark.parametrize("weights", [(1, 1), (0.5, 3), (5, 2, 1), (0.1, 0.1, 0.7)])
def test_data_sets_are_drawn_by_their_weights_each_without_a_gap(weights):
    stream = SampleStream([{"file_name": "a"}], ShuffledDraw(1, 0), None, seed=0)
    mixed = MixedStream([stream] * len(weights), weights)
    places = [mixed.place(position) for position in range(500)]
    for index, weight in enumerate(weights):
        inside = [place for of, place in places if of == index]
        assert inside == list(range(len(inside)))  # in order, so any position can be the first
        for end in range(1, 500, 7):
            drawn = sum(of == index for of, _ in places[:end])
            assert abs(drawn - end * weight / sum(weights)) < len(weights)


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


def test_rare_class_draw_counts_pixels_where_it_is_told_to(caplog):
    """3,000 pixels are 0.0031 of a label of SYNTHIA, 0.0015 of one of GTA V."""
    counts = np.array([[900_000, 3001, 0], [2_000_000, 3000, 0]])
    draw = RareClassDraw(counts, temperature=0.5, min_area=0.5, seed=0, min_pixels=3000)
    assert draw.images[1].tolist() == [0]
    RareClassDraw(counts, temperature=0.5, min_area=0.5, seed=0, min_pixels=4000)
    assert "more than 4000 pixels of class 1" in caplog.text


@pytest.mark.parametrize("resizing", ["antialiased", "bilinear"])
def test_images_are_resized_as_asked_and_labels_stay_in_place(tmp_path, resizing):
    pixels = np.random.default_rng(0).integers(256, size=(64, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    mapper = TestMapper(image_format="RGB", min_size=40, max_size=100, resizing=resizing)
    resized = mapper({"file_name": str(tmp_path / "image.png")})["image"]
    expected = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (40, 56), mode="bilinear",
        antialias=resizing == "antialiased",
    )[0]  # fmt: skip
    assert (resized - expected).abs().max() < 2  # rounded once or twice
    columns = np.tile(np.arange(90, dtype=np.uint8), (64, 1))
    label = RESIZING[resizing](40, 100).get_transform(pixels).apply_segmentation(columns)
    # Where the centers of the resized image's columns lie; the published labels are up to 0.8 off.
    centers = (np.arange(56) + 0.5) * 90 / 56 - 0.5
    assert label.shape == (40, 56) and np.abs(label - centers).max() <= 0.5


def test_a_source_image_smaller_than_the_crop_is_padded_with_what_normalizes_to_0(tmp_path):
    Image.fromarray(np.full((8, 6, 3), 9, np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.zeros((8, 6), np.uint8)).save(tmp_path / "label.png")
    cfg = default_config()
    cfg.INPUT.CROP.SIZE, cfg.INPUT.MIN_SIZE_TRAIN = [10, 8], (0,)
    mapper = SourceMapper(cfg, LabelReader("camvid", False))
    record = {name: str(tmp_path / file) for name, file in
              (("file_name", "image.png"), ("sem_seg_file_name", "label.png"))}  # fmt: skip
    sample = mapper(record, None, seed=0)
    assert (sample["image"][:, :8, :6] == 9).all() and sample["image"].shape == (3, 10, 8)
    assert (sample["label"][8:] == 255).all() and (sample["label"][:, 6:] == 255).all()
    for part in (sample["image"][:, 8:], sample["image"][:, :, 6:]):
        assert torch.equal(part, torch.tensor(cfg.MODEL.PIXEL_MEAN)[:, None, None].expand_as(part))


def _loader(rank=0, world_size=1, workers=0, bad=(), **options):
    def mapper(record, train_id, seed):
        if record["id"] in bad:
            raise InputError(f"{record['file_name']}: cut off")
        image = torch.tensor([[record["id"], seed % 1000]], dtype=torch.float32)
        return {"image": image, "file": record["file_name"]}

    records = [{"id": i, "file_name": f"{i}.png"} for i in range(5)]
    streams = [
        SampleStream(records, ShuffledDraw(5, seed=stream), mapper, stream + 9, "skip" in options)
        for stream in range(2)
    ]
    share = options.get("skip", 0.0)
    return PairedLoader(streams, [4, 2], collate, workers, rank, world_size, share)


def _take(loader, count):
    iterator = iter(loader)
    return [[batch.image for batch in next(iterator)] for _ in range(count)]


def test_processes_share_each_batch():
    whole = _take(_loader(), 2)
    shares = [_take(_loader(rank, 2), 2) for rank in range(2)]
    for iteration in range(2):
        for stream in range(2):
            both = torch.cat([shares[rank][iteration][stream] for rank in range(2)])
            assert torch.equal(both, whole[iteration][stream])
    with pytest.raises(ValueError, match="IMS_PER_BATCH"):
        _loader(world_size=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_also_out_of_a_loaders_process(workers):
    with pytest.raises(InputError) as error:
        _take(_loader(workers=workers, bad=[3]), 4)
    assert str(error.value).startswith("3.png: cut off. Replace the file, or leave out such images")
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)


def test_skipped_images_are_counted_and_replaced_by_the_same_draws_after_a_resume(caplog):
    with EventStorage() as storage, caplog.at_level(logging.WARNING, logger="pppc"):
        loader = _loader(bad=[3], skip=0.05)  # 1 of 5: one always may
        whole = _take(loader, 6)
        assert storage.latest()["data/unreadable"][0] == 2  # of each of the two streams
    assert [list(one) for one in loader.unreadable] == [["3.png"], ["3.png"]]
    assert caplog.text.count("3.png: cut off") == 2  # once a stream, however often it is drawn
    assert not any((batch[:, 0, 0] == 3).any() for pair in whole for batch in pair)
    good = _take(_loader(), 6)
    for ours, theirs in zip(whole, good):  # the other samples stay what they were
        for stream in range(2):
            kept = theirs[stream][:, 0, 0] != 3
            assert torch.equal(ours[stream][kept], theirs[stream][kept])
    late = _loader(workers=2, bad=[3], skip=0.05)
    late.start_at(4)
    for expected, actual in zip(whole[4:], _take(late, 2)):
        assert all(torch.equal(a, b) for a, b in zip(expected, actual))


@pytest.mark.parametrize("bad", [[1, 3], range(5)])
def test_more_than_a_share_of_unreadable_images_ends_the_run(bad):
    with pytest.raises(InputError, match=r"[2-5] of 5 images can't be read.*MAX_UNREADABLE"):
        _take(_loader(bad=bad, skip=0.3), 6)
    if len(bad) == 2:
        assert len(_take(_loader(bad=bad, skip=0.4), 6)) == 6


@pytest.mark.parametrize(
    ("min_pixels", "corners", "chosen"),
    [
        (0, [0, 5, 6], 5),  # the first that shows more than 0.5 * 0.2 of 160 pixels
        (0, [0, 3, *[0] * 9], 3),  # none does: the one that shows most, not the last
        (19, [0, 3, 5], 3),  # as published: more than 0.5 * 19 pixels, whatever the image's size
    ],
)
def test_crop_for_a_rare_class_counts_pixels_of_the_resized_image(
    tmp_path, min_pixels, corners, chosen
):
    label = np.zeros((40, 64), np.uint8)
    label[:, 24:32] = 1  # columns 6 and 7 of the resized image of 16x10
    Image.fromarray(label).save(tmp_path / "label.png")
    Image.fromarray(np.zeros((40, 64, 3), np.uint8)).save(tmp_path / "image.png")
    mapper = SourceMapper(
        label_reader=LabelReader("camvid", False), image_format="RGB", min_size=(10,), max_size=16,
        crop_size=(10, 4), single_category_max_area=1.0, min_area=0.2, min_crop_ratio=0.5,
        pad_value=(0, 0, 0), ignore_label=255, min_pixels=min_pixels,
    )  # fmt: skip
    drawn = []

    def crop(sample):
        drawn.append(corners[len(drawn)])
        sample.sem_seg = sample.sem_seg[:, drawn[-1] : drawn[-1] + 4]
        sample.image = np.full((10, 4, 3), drawn[-1], np.uint8)

    mapper.crop = crop
    record = {name: str(tmp_path / file) for name, file in
              (("file_name", "image.png"), ("sem_seg_file_name", "label.png"))}  # fmt: skip
    sample = mapper(record, 1, seed=0)
    assert (sample["image"] == chosen).all() and sample["file"] == record["file_name"]
    assert len(drawn) == (2 if drawn[-1] else 11)


def test_target_images_of_mixed_sizes_are_cut_alike_at_a_place_of_their_own(tmp_path):
    """Image and day image are cut at one place, which the other images of a batch do not move."""
    mapper = TargetMapper(image_format="RGB", min_size=0, max_size=0, crop_size=(8, 8))
    records = []
    for height, width in ((20, 50), (30, 40), (20, 40)):
        pixels = np.random.default_rng(width).integers(256, size=(height, width, 3), dtype=np.uint8)
        name = str(tmp_path / f"{height}x{width}.png")
        Image.fromarray(pixels).save(name)
        records.append({"file_name": name, "day_file_name": name})
    wide, high, small = (mapper(record, None, seed) for seed, record in enumerate(records))
    batch = collate([wide, high, small])
    assert batch.image.shape == (3, 3, 20, 40) and torch.equal(batch.image, batch.day_image)
    assert batch.files == tuple(record["file_name"] for record in records)
    assert torch.equal(batch.image[2], small["image"])
    x, y = (int(wide["cut"][1] * 11), int(high["cut"][0] * 11))
    assert torch.equal(batch.image[0], wide["image"][:, :, x : x + 40])
    assert torch.equal(batch.image[1], high["image"][:, y : y + 20])
    assert len({mapper(records[0], None, seed)["cut"] for seed in range(5)}) == 5
    assert mapper(records[0], None, 0)["cut"] == wide["cut"]
    assert batch.to("cpu").files == batch.files


def test_an_unreadable_test_image_is_one_line_out_of_a_loaders_process(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    DatasetCatalog.register("bad", lambda: [{"file_name": str(tmp_path / "bad.png")}])
    cfg = default_config()
    cfg.DATALOADER.NUM_WORKERS = 1
    try:
        with pytest.raises(InputError, match=r"^[^\n]*bad\.png: [^\n]*$"):
            list(build_test_loader(cfg, "bad"))
    finally:
        DatasetCatalog.remove("bad")


def test_crops_are_detectron2_s_though_classes_are_counted_otherwise():
    label = np.random.default_rng(0).choice([0, 0, 0, 1, 255], (8, 10)).astype(np.uint8)
    label = label.repeat(4, 0).repeat(4, 1)
    arguments = ("absolute", (16, 16), 0.6, 255)
    crops = []
    for crop in (CropOfSeveralClasses, T.RandomCrop_CategoryAreaConstraint):
        np.random.seed(0)
        drawn = [crop(*arguments).get_transform(label, label) for _ in range(50)]
        crops.append([(one.x0, one.y0, one.w, one.h) for one in drawn])
    assert crops[0] == crops[1] and len(set(crops[0])) > 20


def test_a_test_label_is_decoded_once_for_all_evaluators(datasets_root, tmp_path, monkeypatch):
    cfg = tiny_config(tmp_path, "TEST.UNCERTAINTY", True, "DATALOADER.NUM_WORKERS", 0)
    read, files = LabelReader.read, []
    monkeypatch.setattr(LabelReader, "read", lambda self, p: files.append(p) or read(self, p))
    Trainer.test(cfg, Trainer.build_model(cfg))
    assert len(files) == len(set(files)) == 3


def test_batches_of_the_demo_data(datasets_root):
    cfg = default_config(
        "DATASETS.TRAIN", ("gta_train",), "DATASETS.TARGET", ("cityscapes_train_unlabeled",),
        "INPUT.CROP.SIZE", [48, 80], "INPUT.MIN_SIZE_TRAIN", (40,), "INPUT.MAX_SIZE_TRAIN", 96,
        "INPUT.TARGET.MIN_SIZE", 64, "INPUT.TARGET.MAX_SIZE", 128, "DATALOADER.NUM_WORKERS", 0,
    )  # fmt: skip
    source, target = next(iter(build_train_loader(cfg, seed=1)))
    assert source.image.shape == (2, 3, 48, 80) and source.label.shape == (2, 48, 80)
    # 40 rows after resizing: the rest is padding without labels.
    assert (source.label[:, 40:] == 255).all() and (source.label[:, :40] != 255).any()
    assert target.image.shape == (2, 3, 64, 128) and target.label is None
    assert source.image.max() > 1 and source.image.dtype == torch.float32  # padded
    assert target.image.dtype == torch.uint8

    cfg.INPUT.CROP.SIZE = [65, 80]
    _, target = next(iter(build_train_loader(cfg, seed=1)))
    assert target.image.shape == (2, 3, 65, 128)  # large enough for the crop


def test_several_sources_and_targets_are_drawn_by_weights_and_resumed(datasets_root, tmp_path):
    cfg = tiny_config(
        tmp_path, "DATASETS.TRAIN", "('gta_train', 'synthia_train')", "DATASETS.TRAIN_WEIGHTS", "(1, 3)",
        "DATASETS.TARGET", "('cityscapes_train_unlabeled', 'dark_zurich_train_night_unlabeled')",
        "SOLVER.IMS_PER_BATCH", "4", "SOLVER.TARGET_IMS_PER_BATCH", "4",
    )  # fmt: skip
    check_data(cfg)
    source, target = next(iter(build_train_loader(cfg, seed=1)))
    assert sum("/synthia/" in file for file in source.files) == 3
    sizes = [len(DatasetCatalog.get(name)) for name in cfg.DATASETS.TARGET]
    night = sum("dark_zurich" in file for file in target.files)
    assert abs(night - 4 * sizes[1] / sum(sizes)) < 1
    loader = build_train_loader(cfg, seed=1)
    batches = [next(iterator) for iterator in [iter(loader)] for _ in range(3)]
    resumed = build_train_loader(cfg, seed=1)
    resumed.start_at(2)
    for one, other in zip(next(iter(resumed)), batches[2]):
        assert one.files == other.files and torch.equal(one.image, other.image)
    shares = class_frequencies(cfg)
    assert sum(shares) == pytest.approx(1, abs=1e-3)
