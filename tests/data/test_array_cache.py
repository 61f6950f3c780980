"""Resized images and labels that are kept: the same samples, made anew where a file has changed."""

import logging
import os
import shutil
from collections import namedtuple

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from pppc.config.checks import check_config
from pppc.data import array_cache, build, build_train_loader, file_state, mapper
from pppc.data.catalog import own_reader
from pppc.data.mapper import SourceMapper, TargetMapper
from pppc.errors import InputError
from tiny_run import default_config, tiny_config

PAIRS = "dark_zurich_train_night_day_unlabeled"
SIZES = ("INPUT.CROP.SIZE", [48, 64], "INPUT.MIN_SIZE_TRAIN", (56,), "INPUT.MAX_SIZE_TRAIN", 128,
         "INPUT.TARGET.MIN_SIZE", 56, "INPUT.TARGET.MAX_SIZE", 128)  # fmt: skip


def mappers(cache: object, *opts: object):
    cfg = default_config(*SIZES, "DATALOADER.CACHE", str(cache), *opts)
    return SourceMapper(cfg, own_reader("gta_train")), TargetMapper(cfg)


@pytest.fixture
def records(datasets_root, tmp_path):
    """A source record and a target record with a day image, copies of the demo's, some seconds old."""
    found = [dict(DatasetCatalog.get(name)[0]) for name in ("gta_train", PAIRS)]
    for record in found:
        for key in ("file_name", "sem_seg_file_name", "day_file_name"):
            if key in record:
                record[key] = shutil.copy(record[key], tmp_path)
    return found


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names: list[str] = []
    read = mapper.read_image
    monkeypatch.setattr(
        mapper, "read_image", lambda path, *how: names.append(path) or read(path, *how)
    )
    return names


def drawn(two_mappers, records, train_ids=(None, 5), seeds=range(4)):
    source, target = two_mappers
    samples = [source(records[0], train_id, seed) for train_id in train_ids for seed in seeds]
    return samples + [target(records[1], None, seed) for seed in seeds]


def assert_same(samples, others):
    for one, other in zip(samples, others, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else None
            assert same or value == other[name]


@pytest.mark.parametrize("resizing", ["antialiased", "bilinear"])
def test_samples_are_those_without_a_cache(records, decoded, resizing, tmp_path, monkeypatch):
    monkeypatch.setattr(file_state, "TIME_STAMP_NS", -(10**12))  # the copies are old enough
    opts = ("INPUT.RESIZING", resizing)
    expected = drawn(mappers("", *opts), records)
    decoded.clear()
    cached = mappers(tmp_path / "cache", *opts)
    assert_same(drawn(cached, records), expected)
    assert len(decoded) == 3  # each once: source, night and day
    monkeypatch.setattr(array_cache, "file_digest", lambda path: pytest.fail(f"{path} was opened"))
    assert_same(drawn(mappers(tmp_path / "cache", *opts), records), expected)
    assert len(decoded) == 3
    monkeypatch.undo()
    # Whatever changes the arrays has entries of its own.
    for other in (
        ("INPUT.FORMAT", "BGR"),
        ("INPUT.MIN_SIZE_TRAIN", (60,), "INPUT.TARGET.MIN_SIZE", 60),
    ):
        assert_same(drawn(mappers(tmp_path / "cache", *opts, *other), records),
                    drawn(mappers("", *opts, *other), records))  # fmt: skip
    assert len(list((tmp_path / "cache").iterdir())) == 6


def test_a_file_that_has_changed_is_read_anew_and_one_that_was_touched_is_not(
    records, decoded, tmp_path, monkeypatch
):
    monkeypatch.setattr(file_state, "TIME_STAMP_NS", 0)
    cache = tmp_path / "cache"
    drawn(mappers(cache), records)
    for key, record in (("file_name", 0), ("sem_seg_file_name", 0), ("day_file_name", 1)):
        path = records[record][key]
        before, pixels = os.stat(path), cv2.imread(path, cv2.IMREAD_UNCHANGED)
        pixels[:20, :30] = 1 if pixels.ndim == 2 else pixels[:20, :30, ::-1]
        cv2.imwrite(path, pixels)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert_same(drawn(mappers(cache), records), drawn(mappers(""), records))
    decoded.clear()
    for record in records:
        os.utime(record["file_name"])
    drawn(mappers(cache), records)
    assert decoded == []  # the content is the same
    os.remove(records[0]["file_name"])
    with pytest.raises(InputError, match="can't be read"):
        drawn(mappers(cache), records)


def test_entries_that_are_damaged_are_made_anew_and_a_full_disk_ends_nothing(
    records, tmp_path, monkeypatch, caplog
):
    cache, expected = tmp_path / "cache", drawn(mappers(""), records)
    drawn(mappers(cache), records)
    for entry, content in zip(sorted(cache.iterdir()), (b"", entry_cut(cache))):
        entry.write_bytes(content)
    assert_same(drawn(mappers(cache), records), expected)
    assert all(entry.stat().st_size > 2000 for entry in cache.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_cache, "write_atomically", full)
    with caplog.at_level(logging.WARNING):
        assert_same(drawn(mappers(tmp_path / "other"), records), expected)
    assert caplog.text.count("keeps nothing more: [Errno 28]") == 2  # source and target


def entry_cut(cache) -> bytes:
    content = min(cache.iterdir()).read_bytes()
    return content[: len(content) // 2]


def test_an_image_that_the_crop_does_not_fit_into_is_not_kept(tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((40, 400, 3), np.uint8))
    record = {"file_name": str(tmp_path / "wide.png")}
    _, target = mappers(tmp_path / "cache", "INPUT.TARGET.MAX_SIZE", 64)
    assert target(record, None, 0)["image"].shape[1] >= 48
    assert not target.cache.entry(record).exists()


def test_a_target_s_labels_are_never_opened(records, tmp_path):
    record = records[1] | {"sem_seg_file_name": str(tmp_path / "none.png")}
    _, target = mappers(tmp_path / "cache")
    target(record, None, 0)
    assert target.cache.entry(record).exists()


def test_processes_fill_one_cache_and_room_is_looked_for_before(
    datasets_root, tmp_path, monkeypatch, caplog
):
    opts = ("SEED", 1, "DATALOADER.NUM_WORKERS", 4, "DATALOADER.CACHE")
    folder = tmp_path / "new/cache"
    with caplog.at_level(logging.INFO, logger="pppc"):
        plain, filling, filled = (
            [next(batches) for batches in [iter(build_train_loader(cfg, seed=1))] for _ in range(6)]
            for cfg in (tiny_config(tmp_path, *opts, str(cache)) for cache in ("", folder, folder))
        )
    for one, *others in zip(plain, filling, filled):
        for other in others:
            for a, b in zip(one, other):
                assert torch.equal(a.image, b.image) and a.files == b.files
                assert a.label is None or torch.equal(a.label, b.label)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors"}
    assert f"{folder} has 0 of 14 images" in caplog.text

    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(build.shutil, "disk_usage", lambda path: usage(100))
    with pytest.raises(InputError, match=r"0\.0 GB are free in .*larger disk"):
        build_train_loader(tiny_config(tmp_path, *opts, str(tmp_path / "more")), seed=1)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"DATALOADER.CACHE: .*Give another folder"):
        build_train_loader(tiny_config(tmp_path, *opts, str(tmp_path / "file/cache")), seed=1)
    with pytest.raises(InputError, match=r"DATALOADER.CACHE is .* one size"):
        check_config(tiny_config(tmp_path, *opts, "c", "INPUT.MIN_SIZE_TRAIN", (64, 80)))
