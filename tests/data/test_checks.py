"""What is found before training: unreadable files, sizes, classes without a pixel, ignored rows."""

import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.events import EventStorage
from PIL import Image
from pppc.data import build_train_loader, check_data, file_state, inspection
from pppc.data.catalog import register_split
from pppc.data.inspection import inspect_files
from pppc.data.labels import LabelReader
from pppc.data.mapper import TargetMapper
from pppc.data.splits import Split
from pppc.data.train_ids import CAMVID_CLASSES
from pppc.engine import Trainer
from pppc.errors import InputError
from tiny_run import default_config, tiny_config

READER = LabelReader("camvid", train_ids=False)
SOURCE = Split("camvid", "own/images", label_folder="own/labels", train_ids=False)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pppc"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Three images and labels of CamVid's classes, as own_source, own_target and own_test.

    They are below a folder whose name is no text and no pattern.
    """
    tmp_path = tmp_path / os.fsdecode(b"da ta [1]*? %s \xff\n")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for name in "abc":
        image = rng.integers(256, size=(32, 48, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"own/images/{name}.png")
        Image.fromarray((np.arange(32 * 48).reshape(32, 48) % 12).astype(np.uint8)).save(
            tmp_path / f"own/labels/{name}.png"
        )
    names = ("own_source", "own_target", "own_test")
    for name, split in zip(names, (SOURCE, Split("camvid", "own/images"), SOURCE)):
        register_split(name, split)
    yield tmp_path / "own"
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def config(*opts):
    cfg = default_config(
        "DATASETS.TRAIN", ("own_source",), "DATASETS.TARGET", ("own_target",),
        "DATASETS.TEST", ("own_test",), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 11,
        "INPUT.CROP.SIZE", [16, 16], "INPUT.TARGET.MIN_SIZE", 0, "DATALOADER.NUM_WORKERS", 0,
        "PPPC.SELF_TRAINING.IGNORE_TOP", 0, "PPPC.SELF_TRAINING.IGNORE_BOTTOM", 0, *opts,
    )  # fmt: skip
    return cfg


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def records(own):
    return DatasetCatalog.get("own_source")


def test_every_file_is_decoded_and_the_rest_still_checked(own):
    cut(own / "images/a.png")
    Image.fromarray(np.full((32, 48), 77, np.uint8)).save(own / "labels/b.png")
    Image.new("L", (10, 20)).save(own / "labels/c.png")
    found = inspect_files(records(own), READER)
    assert len(found.problems) == 3
    for text in (r"images/a.png", "labels/b.png", "labels/c.png is 10x20"):
        assert sum(text in problem for problem in found.problems) == 1, text
    assert found.images == {str(own / f"images/{name}.png"): (32, 48) for name in "bc"}
    # Labels a and c: 128 pixels of each of 12 values (the last is void), and 200 pixels of sky.
    assert [os.path.basename(label) for label in found.labels] == ["a.png", "c.png"]
    expected = {name: 128 + 200 * (name == "sky") for name in (*CAMVID_CLASSES, "")}
    assert found.class_pixels == expected
    found = inspect_files(records(own), READER, (), ())  # headers alone
    assert found.labels == {} and any("labels/c.png is 10x20" in text for text in found.problems)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names = []
    read_image, read_label = inspection.read_image, LabelReader.read

    def read(function, path, *arguments):
        names.append(os.path.relpath(path, os.environ["DETECTRON2_DATASETS"]))
        return function(path, *arguments)

    monkeypatch.setattr(inspection, "read_image", lambda *a: read(read_image, *a))
    monkeypatch.setattr(LabelReader, "read", lambda self, p: read(lambda p: read_label(self, p), p))
    return names


def look_again(own, decoded, **options):
    decoded.clear()
    found = inspect_files(records(own), READER, **options)
    return sorted(decoded), found


def test_what_was_found_is_kept_until_a_file_changes(own, decoded, cache, monkeypatch):
    cut(own / "labels/c.png")
    files, first = look_again(own, decoded)
    assert len(files) == 6 and len(first.problems) == 1
    # What is wrong is looked at again; the rest is young, so that its content is compared.
    files, second = look_again(own, decoded)
    assert files == ["own/labels/c.png"] and second == first
    monkeypatch.setattr(file_state, "TIME_STAMP_NS", 0)
    monkeypatch.setattr(inspection, "file_digest", lambda path: pytest.fail(f"{path} was opened"))
    (own / "labels/c.png").unlink()
    shutil.copy(own / "labels/b.png", own / "labels/c.png")
    monkeypatch.setattr(inspection, "file_digest", lambda path: "of c alone")
    assert look_again(own, decoded)[0] == ["own/labels/c.png"]
    assert look_again(own, decoded)[0] == []
    # Cut off or written by another version.
    for change in ("{", "[]", {"readers": "old"}, {"files": 5}, {"files": []}, {"files": None},
                   {"files": {"a.png": {}}}, {"files": {"a.png": 5}}):  # fmt: skip
        for path in cache.iterdir():
            whole = json.loads(path.read_text())
            path.write_text(change if isinstance(change, str) else json.dumps(whole | change))
        assert len(look_again(own, decoded)[0]) == 6


def in_place(path, content):
    path.write_bytes(content)


def replaced(path, content):
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def test_a_second_start_opens_no_file_that_is_unchanged(own, monkeypatch):
    monkeypatch.setattr(file_state, "TIME_STAMP_NS", -(10**12))  # made just now, but no matter
    check_data(config())
    build_train_loader(config(), seed=0)
    opened = []
    monkeypatch.setattr(inspection, "_report", lambda read, path: opened.append(path) or {})
    monkeypatch.setattr(inspection, "file_digest", lambda path: opened.append(path))
    check_data(config())
    build_train_loader(config(), seed=0)
    assert opened == []


@pytest.mark.parametrize("young", [True, False])
@pytest.mark.parametrize("change", [in_place, replaced])
def test_a_change_is_seen_whatever_the_dates_and_the_size(own, decoded, change, young, monkeypatch):
    path = own / "images/b.png"
    before, content = path.stat(), bytearray(path.read_bytes())
    if not young:
        monkeypatch.setattr(file_state, "TIME_STAMP_NS", 0)
    assert inspect_files(records(own), READER).problems == []
    content[len(content) // 2] ^= 0xFF
    change(path, content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert look_again(own, decoded)[0] == ["own/images/b.png"]


def test_the_hash_tells_where_a_coarse_clock_cannot(own, decoded, monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr(inspection, "file_times", lambda path: [9, now, now, 1])  # of every file
    inspect_files(records(own), READER)
    assert look_again(own, decoded)[0] == []
    cut(own / "images/b.png")
    files, found = look_again(own, decoded)
    assert files == ["own/images/b.png"] and len(found.problems) == 1
    old = now - 10**10  # whoever changes a file now gives it another time
    monkeypatch.setattr(inspection, "file_times", lambda path: [9, old, old, 1])
    look_again(own, decoded)
    monkeypatch.setattr(inspection, "file_digest", lambda path: pytest.fail(f"{path} was opened"))
    assert look_again(own, decoded, decode_images=[0, 2])[0] == []


def test_labels_of_another_label_space_are_read_anew_and_images_are_not(own, decoded):
    inspect_files(records(own), READER)
    decoded.clear()
    inspect_files(records(own), LabelReader("cityscapes", train_ids=True))
    assert sorted(decoded) == [f"own/labels/{name}.png" for name in "abc"]


def test_a_cache_that_cannot_be_written_does_not_stop_the_check(own, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert inspect_files(records(own), READER).problems == []


def test_problems_end_the_run_before_training_or_are_skipped(own, caplog):
    check_data(config())
    cut(own / "images/b.png")
    with pytest.raises(InputError, match=r"own_source: .*b\.png.*`pppc check own_source --read`"):
        check_data(config())
    skip = ("DATALOADER.UNREADABLE", "skip", "DATASETS.TEST", ())
    with caplog.at_level(logging.WARNING):
        check_data(config(*skip))
    assert "own_source: " in caplog.text and "will be left out" in caplog.text
    with pytest.raises(InputError, match="own_test: "):  # evaluation skips nothing
        check_data(config(*skip[:2]))
    cut(own / "images/c.png")
    with pytest.raises(InputError, match=r"and 1 more problem\."):
        check_data(config(*skip))
    with pytest.raises(InputError, match="UNREADABLE is 'Skip': use"):
        check_data(config("DATALOADER.UNREADABLE", "Skip"))


def test_labels_are_counted_once_and_unreadable_ones_left_out(own, decoded):
    cut(own / "labels/b.png")
    opts = ("DATASETS.TEST", (), "DATASETS.TARGET", (), "PPPC.SELF_TRAINING.ENABLED", False)
    with pytest.raises(InputError, match=r"own_source: .*labels/b\.png"):
        build_train_loader(config(*opts), seed=0)
    decoded.clear()
    cfg = config(*opts, "DATALOADER.UNREADABLE", "skip")
    loader = build_train_loader(cfg, seed=0)
    assert decoded == ["own/labels/b.png"]
    batches = iter(loader)
    files = {os.path.basename(file) for _ in range(20) for file in next(batches)[0].files}
    assert files == {"a.png", "c.png"}  # b is never drawn
    (unreadable,) = loader.unreadable
    assert list(map(os.path.basename, unreadable)) == ["b.png"]  # and counted all the same
    with EventStorage() as storage:
        next(iter(loader))
        assert storage.latest()["data/unreadable"][0] == 1
    cut(own / "labels/c.png")
    with pytest.raises(InputError, match=r"own_source: .*and 1 more problem\."):
        build_train_loader(cfg, seed=0)


def test_a_fixed_even_sample_is_decoded_and_all_headers_are_read(own, decoded):
    cfg = config("DATALOADER.CHECK_SAMPLE", 2, "DATASETS.TEST", ())
    check_data(cfg)
    assert sorted(decoded) == [f"own/{kind}/{name}.png" for kind in ("images", "labels")
                               for name in "ac"]  # fmt: skip
    Image.new("RGB", (47, 32)).save(own / "images/b.png")
    with pytest.raises(InputError, match="own_source: sizes differ: .*b.png is 47x32, .* is 48x32"):
        check_data(cfg)


@pytest.mark.parametrize("rare_class_sampling", [True, False])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({0: 1, 1: 11}, "only sky of .* some ignored pixels.*Masks of 0 and 255"),
        ({0: 3}, "only road of the model's 11 classes, and no ignored pixels.*correct the labels"),
        ({0: 11}, "none of the model's 11 classes"),
    ],
)
def test_a_source_without_classes_is_refused(own, values, message, rare_class_sampling):
    """Value 11 is CamVid's void."""
    for name in "abc":
        label = np.full((32, 48), next(iter(values.values())), np.uint8)
        label[:9] = [*values.values()][-1]
        label = np.where(label == 1, 0, label).astype(np.uint8)
        Image.fromarray(label).save(own / f"labels/{name}.png")
    cfg = config("DATASETS.TEST", (), "DATALOADER.RARE_CLASS_SAMPLING.ENABLED", rare_class_sampling)
    with pytest.raises(InputError, match=f"own_source: 3.* labels show {message}"):
        check_data(cfg)
        build_train_loader(cfg, seed=0)


@pytest.mark.parametrize("rare_class_sampling", [True, False])
def test_classes_that_no_source_label_shows_are_named(own, caplog, rare_class_sampling):
    for name in "abc":
        Image.fromarray((np.eye(32, 48) * 4).astype(np.uint8)).save(own / f"labels/{name}.png")
    cfg = config("DATASETS.TEST", (), "DATALOADER.RARE_CLASS_SAMPLING.ENABLED", rare_class_sampling)
    with caplog.at_level(logging.WARNING):
        check_data(cfg)
        build_train_loader(cfg, seed=0)
    missing = ", ".join(name for name in CAMVID_CLASSES if name not in ("sky", "pavement"))
    assert f"labels never show {missing}: the model can't learn these" in caplog.text


def test_test_sets_without_classes(own, caplog):
    (own.parent / "own_test").mkdir()
    for name in "abc":
        Image.fromarray(np.full((32, 48), 11, np.uint8)).save(own / f"labels/{name}.png")
    cfg = config("DATASETS.TRAIN", ())
    with pytest.raises(InputError, match="own_test: no label shows a class of the model, all 3"):
        check_data(cfg, training=False)
    Image.fromarray(np.eye(32, 48, dtype=np.uint8) * 11).save(own / "labels/b.png")
    with caplog.at_level(logging.WARNING):
        check_data(cfg, training=False)
    assert "own_test: sky is the only class that a label shows" in caplog.text
    assert "masks of 0 and 255" in caplog.text


@pytest.mark.parametrize(("top", "bottom", "left"), [(16, 0, 0), (9, 120, 0), (4, 5, 7), (8, 0, 8)])
def test_ignored_rows_that_leave_little_of_the_crop(own, caplog, top, bottom, left):
    cfg = config("PPPC.SELF_TRAINING.IGNORE_TOP", top, "PPPC.SELF_TRAINING.IGNORE_BOTTOM", bottom)
    message = rf"TOP {top} and IGNORE_BOTTOM {bottom} leave {left} of the 16 rows .*CROP.SIZE"
    with caplog.at_level(logging.WARNING):
        if left == 0:
            with pytest.raises(InputError, match=message):
                check_data(cfg)
        else:
            check_data(cfg)
    assert ("leave 7 of the 16 rows" in caplog.text) == (left == 7)
    check_data(config("PPPC.SELF_TRAINING.ENABLED", False, "PPPC.SELF_TRAINING.IGNORE_TOP", top))


def test_images_too_narrow_for_the_crop_are_enlarged_and_told(own, caplog):
    Image.fromarray(np.arange(3000, dtype=np.uint32).astype(np.uint8).reshape(6, 500)).save(
        own / "images/b.png"
    )
    Image.new("L", (500, 6)).save(own / "labels/b.png")
    cfg = config("INPUT.CROP.SIZE", [32, 48], "SOLVER.TARGET_IMS_PER_BATCH", 3)
    cfg.INPUT.TARGET.MIN_SIZE, cfg.INPUT.TARGET.MAX_SIZE = 32, 96
    with caplog.at_level(logging.WARNING):
        check_data(cfg)
    assert "the crop of 48x32 does not fit into 1 of 3 resized images, such as " in caplog.text
    _, target = next(iter(build_train_loader(cfg, seed=0)))
    assert target.image.shape == (3, 3, 32, 48)  # to the smallest of the batch
    mapper = TargetMapper(cfg)
    record = {"file_name": str(own / "images/b.png")}
    parts = [mapper(record, None, seed)["image"] for seed in range(4)]
    assert {tuple(part.shape) for part in parts} == {(3, 32, 96)}  # of 32x2667 pixels
    assert not parts[0].equal(parts[1])
    # From 64 to 12,000 pixels, both ways: never more than the longest side, or less than the crop.
    for height, width in ((64, 64), (12000, 64), (64, 12000), (9000, 12000), (1, 300)):
        image = np.zeros((height, width, 3), np.uint8)
        transform = mapper._resize(image, 0.99)
        height, width = transform.apply_image(image).shape[:2]
        assert 32 <= height <= 96 and 48 <= width <= 96


def test_target_images_of_mixed_sizes_train_in_one_batch(own):
    Image.new("RGB", (40, 40)).save(own / "images/b.png")
    Image.new("L", (40, 40)).save(own / "labels/b.png")
    cfg = config("SOLVER.TARGET_IMS_PER_BATCH", 3)
    check_data(cfg)
    _, target = next(iter(build_train_loader(cfg, seed=0)))
    assert target.image.shape == (3, 3, 32, 40)
    assert sorted(map(os.path.basename, target.files)) == ["a.png", "b.png", "c.png"]


def test_a_run_that_met_an_unreadable_image_goes_on_without_it(
    datasets_root, tmp_path, monkeypatch
):
    shutil.copytree(datasets_root, tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    opts = ["SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 1, "DATASETS.TEST", "()",
            "TEST.EVAL_PERIOD", 0, "DATALOADER.CHECK_SAMPLE", 1,
            "DATALOADER.NUM_WORKERS", 1]  # fmt: skip

    def train(*more, resume=False):
        trainer = Trainer(tiny_config(tmp_path / "run", *opts, *more))
        trainer.resume_or_load(resume)
        trainer.train()

    cfg = tiny_config(tmp_path / "run", *opts)
    stream = build_train_loader(cfg, seed=cfg.SEED)._streams[1]
    # Of the third or fourth target image; the first of the list is read before training.
    bad = next(filter(None, (stream.draw(position)[0] for position in (2, 3))))
    file = Path(stream.records[bad]["file_name"])
    cut(file)
    with pytest.raises(InputError, match=rf"{file.name}: .*DATALOADER.UNREADABLE skip"):
        train()
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000000.pth"
    with pytest.raises(InputError, match=rf"{file.name}: "):
        train(resume=True)
    train("DATALOADER.UNREADABLE", "skip", resume=True)  # as the message says
    lines = (tmp_path / "run/metrics.json").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    skipped = {entry["iteration"]: entry.get("data/unreadable") for entry in metrics}
    assert max(skipped) == 3 and skipped[3] == 1


@pytest.fixture
def check_datasets(monkeypatch, capsys):
    """The tool's main in this process: (exit status, standard output, lines of standard error)."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))
    import check_datasets

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["check_datasets.py", *arguments])
        try:
            status = check_datasets.main()
        except InputError as error:
            return 2, "", [str(error)]
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


def test_tool_names_all_that_is_wrong(datasets_root, tmp_path, monkeypatch, check_datasets):
    for name in ("gta", "cityscapes"):
        shutil.copytree(datasets_root / name, tmp_path / name)
    shutil.rmtree(tmp_path / "cityscapes/leftImg8bit/val")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    status, output, errors = check_datasets()
    rows = {line.split()[0]: line for line in output.splitlines() if "_" in line}
    assert status == 0 and errors == []
    assert rows["gta_train"].split()[1:4] == ["8", "24904", "8"]
    assert "in order" in rows["gta_train"] and "not there" in rows["cityscapes_val"]
    status, _, errors = check_datasets("cityscapes_val")
    assert status == 1 and "leftImg8bit/val" in errors[0]
    status, _, errors = check_datasets("gta_trian")
    assert status == 2 and "gta_train" in errors[0]

    images = sorted((tmp_path / "gta/images").glob("*.png"))
    labels = sorted((tmp_path / "gta/labels").glob("*TrainIds.png"))
    cut(images[1])
    Image.new("L", Image.open(labels[2]).size, 77).save(labels[2])
    Image.new("L", (64, 64)).save(labels[3])
    (images[0].parent / "._x.png").touch()
    assert check_datasets("gta_train")[0] == 1
    status, output, errors = check_datasets("gta_train", "--read")
    assert status == 1 and all(line.startswith("error: gta_train: ") for line in errors)
    for wrong in (images[1].name, labels[2].name, f"{labels[3].name} is 64x64"):
        assert sum(wrong in line for line in errors) == 1
    assert "gta_train: not taken: 1 hidden (._x.png)" in output
    labels[4].unlink()
    status, _, errors = check_datasets("gta_train")
    assert status == 1 and labels[4].name in errors[0]


def test_tool_knows_data_sets_that_the_user_registered(own, check_datasets):
    status, output, _ = check_datasets("own_source", "--read")
    assert status == 0 and "own_source" in output and "in order" in output
    DatasetCatalog.register("plain", lambda: records(own))
    try:
        status, output, _ = check_datasets("plain", "--read")
        assert status == 0 and "plain: nothing names its classes" in output
        assert "plain: not registered by pppc.data.register_split" in output
        cut(own / "images/a.png")
        status, _, errors = check_datasets("plain", "--read")
        assert status == 1 and "a.png" in errors[0]
    finally:
        DatasetCatalog.remove("plain")


def test_tool_prints_some_of_many_problems_and_their_number(own, check_datasets):
    for number in range(25):
        for kind in ("images", "labels"):
            Path(own / kind / f"{number}.png").touch()
    status, _, errors = check_datasets("own_source")
    assert status == 1 and len(errors) == 21 and errors[-1].startswith("error: 50 problems, 20 of")


@pytest.mark.parametrize("name", ["own_source", "own_test"])
def test_an_image_of_which_nothing_would_be_left_is_named(own, name):
    for kind, mode in (("images", "RGB"), ("labels", "L")):
        Image.new(mode, (900, 3)).save(own / f"{kind}/a.png")
    cfg = config("INPUT.MAX_SIZE_TRAIN", 64, "INPUT.MAX_SIZE_TEST", 64)
    with pytest.raises(InputError, match=r"a\.png is 900x3: resized .* nothing of it is left"):
        check_data(cfg, training=name == "own_source")
