"""Conversion of label files, against a plain mapping of every pixel."""

import json
import os
import runpy
import shutil
import sys
from unittest.mock import ANY

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog
from PIL import Image, PngImagePlugin
from pppc.data import check_data
from pppc.data.conversion import (
    convert_labels,
    count_train_ids,
    list_label_images,
    read_synthia_image,
    to_train_ids,
)
from pppc.data.formats.cityscapes_polygons import draw_polygons
from pppc.data.labels import LabelReader
from pppc.data.outdated import outdated_labels
from pppc.data.splits import SPLITS
from pppc.data.stamps import stamp_of
from pppc.data.train_ids import LABEL_SPACES
from pppc.errors import InputError
from tiny_run import tiny_config

TOOLS = REPOSITORY / "tools/convert_datasets"
# road, sidewalk, building, car, bicycle and three void ids, as GTA V and Cityscapes number them
TRAIN_ID_OF = {7: 0, 8: 1, 11: 2, 26: 13, 33: 18, 0: 255, 4: 255, 30: 255}

PALETTE = [0] * 768  # void ids are black
for _id, _train_id in LABEL_SPACES["gta"].id_to_train_id.items():
    PALETTE[3 * _id : 3 * _id + 3] = LABEL_SPACES["gta"].colors[_train_id]


@pytest.fixture
def convert(monkeypatch, capfd):
    """Runs a converter's command line; returns its exit status and what it wrote to stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--nproc", "1"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
        return end.value.code, capfd.readouterr().err

    return run


def map_plainly(ids):
    return np.array([[TRAIN_ID_OF[int(i)] for i in row] for row in ids], np.uint8)


@pytest.fixture
def ids():
    return np.random.default_rng(0).choice(list(TRAIN_ID_OF), (3, 12, 20)).astype(np.uint8)


@pytest.fixture
def gta(tmp_path, ids):
    """Three labels: two images with the data set's palette, and a gray one."""
    root = tmp_path / "gta"
    (root / "labels").mkdir(parents=True)
    (root / "images").mkdir()
    for number, label in enumerate(ids, 1):
        image = Image.fromarray(label)
        if number < 3:
            image.putpalette(PALETTE)
        image.save(root / f"labels/0000{number}.png")
        Image.new("RGB", (20, 12)).save(root / f"images/0000{number}.png")
    return root


def test_gta_images_and_statistics(gta, ids, convert, monkeypatch):
    """By names that begin with the root as it is given."""
    monkeypatch.chdir(gta.parent)
    status, errors = convert("gta", "gta")
    assert status == 0, errors
    expected = {}
    for number, label in enumerate(ids, 1):
        path = f"gta/labels/0000{number}_labelTrainIds.png"
        written = np.asarray(Image.open(path))
        np.testing.assert_array_equal(written, map_plainly(label))
        values, pixels = np.unique(written[written != 255], return_counts=True)
        expected[path] = dict(zip(map(str, values), pixels.tolist(), strict=True))
    read = {p.stem: json.loads(p.read_text()) for p in gta.glob("*.json")}
    assert read["sample_class_stats_dict"] == expected
    assert read["sample_class_stats"] == [{**n, "file": path} for path, n in expected.items()]
    assert read["samples_with_class"]["13"] == [[p, n["13"]] for p, n in expected.items()]
    assert set(read) == {"sample_class_stats", "sample_class_stats_dict", "samples_with_class"}


def test_out_dir_mirrors_the_data_set_which_is_left_alone(gta, ids, convert, monkeypatch):
    before = sorted(gta.rglob("*"))
    out = gta.parent / "converted/gta"
    status, errors = convert("gta", gta, "--out-dir", out)
    assert status == 0, errors
    assert sorted(gta.rglob("*")) == before
    statistics = json.loads((out / "sample_class_stats_dict.json").read_text())
    assert sorted(statistics)[0] == f"{out}/labels/00001_labelTrainIds.png"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(gta.parent))
    monkeypatch.setenv("PPPC_CONVERTED", str(gta.parent / "converted"))
    record = DatasetCatalog.get("gta_train")[0]
    assert record["sem_seg_file_name"] == f"{out}/labels/00001_labelTrainIds.png"
    np.testing.assert_array_equal(
        np.asarray(Image.open(record["sem_seg_file_name"])), map_plainly(ids[0])
    )


def test_a_root_that_is_read_only_is_one_line(gta, convert, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    status, errors = convert("gta", gta)
    assert status == 2 and len(errors.splitlines()) == 1
    assert f"{gta}/labels cannot be written to: give --out-dir DIR" in errors


def test_outputs_are_kept_or_made_anew_by_content_whatever_the_dates_say(gta, ids, convert):
    """One output stays; one was cut off, one changed, one label replaced by an older file."""
    labels = gta / "labels"
    Image.fromarray(ids[0]).save(labels / "00004.png")
    Image.new("RGB", (20, 12)).save(gta / "images/00004.png")
    convert("gta", gta)
    kept, torn, changed, replaced = sorted(labels.glob("*_labelTrainIds.png"))
    whole = {path: path.read_bytes() for path in (kept, torn, changed)}
    torn.write_bytes(whole[torn][:-20])
    altered, text = Image.open(changed), PngImagePlugin.PngInfo()
    for key, value in altered.info.items():
        text.add_text(key, value)
    altered.putpixel((0, 0), 7)
    altered.save(changed, pnginfo=text)
    Image.fromarray(ids[1]).save(labels / "00004.png")
    for path in (labels / "00004.png", changed):
        os.utime(path, (0, 0))
    before = kept.stat()
    status, errors = convert("gta", gta)
    assert status == 0, errors
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert all(path.read_bytes() == content for path, content in whole.items())
    np.testing.assert_array_equal(np.asarray(Image.open(replaced)), map_plainly(ids[1]))
    statistics = json.loads((gta / "sample_class_stats_dict.json").read_text())
    assert statistics[str(replaced)]["13"] == int((ids[1] == 26).sum())
    assert not list(gta.rglob("*partial*"))


def test_an_output_of_other_rules_is_made_anew(gta, convert, monkeypatch):
    convert("gta", gta)
    (first, *_) = sorted((gta / "labels").glob("*_labelTrainIds.png"))
    before = first.read_bytes()
    monkeypatch.setattr("pppc.data.stamps.VERSION", 2)
    convert("gta", gta)
    assert first.read_bytes() != before


def test_what_is_no_label_is_left_out_with_a_count(gta, convert):
    labels = gta / "labels"
    (labels / "00001.png").rename(labels / "00001.PNG")
    for name in ("._00001.png", ".DS_Store", "readme.txt"):
        (labels / name).write_bytes(b"x")
    status, errors = convert("gta", gta)
    assert status == 0, errors
    assert "2 hidden files left out" in errors and "1 files that are no labels left out" in errors
    assert (labels / "00001_labelTrainIds.png").is_file()


def test_bad_labels_are_named_and_the_others_converted(gta, convert):
    labels = gta / "labels"
    (labels / "00001.png").write_bytes((labels / "00001.png").read_bytes()[:60])
    Image.new("RGB", (21, 12)).save(gta / "images/00002.png")
    Image.new("RGB", (20, 12), (0, 0, 200)).save(labels / "00004.png")
    Image.new("L", (20, 12), 77).save(labels / "00005.png")
    Image.new("L", (20, 13)).save(labels / "20801.png")  # known, and left out
    status, errors = convert("gta", gta)
    assert status == 1
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    for line, (number, reason) in zip(
        lines, [(1, "is no image"), (2, "20x12"), (4, "0, 0, 200"), (5, "77")], strict=True
    ):
        assert f"0000{number}.png" in line and reason in line
    assert [p.name for p in labels.glob("*TrainIds.png")] == ["00003_labelTrainIds.png"]
    assert len(json.loads((gta / "sample_class_stats.json").read_text())) == 1


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(gta, monkeypatch):
    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("pppc.files.os.replace", full_disk)
    labels = list_label_images(str(gta), str(gta), "labels", "images")
    reader = LabelReader("gta", train_ids=False)
    counts, problems = convert_labels(labels, reader.read, reader.space, 1)
    assert not counts and len(problems) == 3
    assert "00001.png" in problems[0] and "No space left" in problems[0]
    assert len(list(gta.rglob("*"))) == 8  # two folders, three labels, three images


@pytest.mark.parametrize("name", ["gta", "synthia", "cityscapes"])
def test_missing_folder_is_one_line(tmp_path, convert, name):
    status, errors = convert(name, tmp_path)
    assert status == 2
    assert errors.startswith("error: no ") and str(tmp_path) in errors
    assert len(errors.splitlines()) == 1


def test_synthia_ids_are_the_red_channel_of_16_bits(tmp_path):
    instances = np.full((4, 6), 3001, np.uint16)
    red = np.arange(24, dtype=np.uint16).reshape(4, 6) % 23
    path = str(tmp_path / "0000000.png")
    cv2.imwrite(path, np.stack([0 * red, instances, red], axis=-1))  # OpenCV's order: B, G, R
    space = LABEL_SPACES["synthia"]
    train_ids = read_synthia_image(path, space)
    # void, sky, building, road, sidewalk, fence
    assert train_ids[0].tolist() == [255, 10, 2, 0, 1, 4]
    assert count_train_ids(train_ids, space) == dict.fromkeys(range(19), 1)
    cv2.imwrite(path, np.stack([0 * red, instances, red + 256], axis=-1))
    with pytest.raises(InputError, match=r"0000000.png: holds \[256, 257"):
        read_synthia_image(path, space)
    cv2.imwrite(path, red.astype(np.uint8))
    with pytest.raises(InputError, match="16-bit RGB"):
        read_synthia_image(path, space)


@pytest.mark.parametrize("ending", [".PNG", ".tif", ".Gif"])
def test_cityscapes_label_ids_of_any_ending_are_converted(ending, tmp_path, ids, convert):
    folder = tmp_path / "gtFine/train/aachen"
    folder.mkdir(parents=True)
    label = Image.fromarray(ids[0])
    label.save(folder / f"a_gtFine_labelIds{ending}")
    label.save(folder / "b_gtFine_labelIds.png")
    assert convert("cityscapes", tmp_path) == (0, ANY)
    for name in "ab":
        with Image.open(folder / f"{name}_gtFine_labelTrainIds.png") as output:
            np.testing.assert_array_equal(np.asarray(output), map_plainly(ids[0]))
    label.save(folder / "a_gtFine_labelIds.bmp")
    status, errors = convert("cityscapes", tmp_path)
    assert status == 2 and "1 labels have more than one file, such as a_gtFine_labelIds" in errors


def test_cityscapes_polygons_before_label_ids_and_statistics_of_train_only(tmp_path, ids, convert):
    for split, city in (("train", "aachen"), ("val", "lindau")):
        folder = tmp_path / "gtFine" / split / city
        folder.mkdir(parents=True)
        stem = f"{city}_000000_000019_gtFine"
        Image.fromarray(ids[0]).save(folder / f"{stem}_labelIds.png")
        if split == "train":
            road = {"label": "road", "polygon": [[0, 0], [5, 0], [5, 3], [0, 3]]}
            annotation = {"imgWidth": 6, "imgHeight": 4, "objects": [road]}
            (folder / f"{stem}_polygons.json").write_text(json.dumps(annotation))
    status, errors = convert("cityscapes", tmp_path)
    assert status == 0, errors
    train = tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png"
    val = tmp_path / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelTrainIds.png"
    assert (np.asarray(Image.open(train)) == 0).all()
    np.testing.assert_array_equal(np.asarray(Image.open(val)), map_plainly(ids[0]))
    statistics = json.loads((tmp_path / "sample_class_stats_dict.json").read_text())
    assert statistics == {str(train): {"0": 24}}


def test_polygons_are_drawn_in_order(tmp_path):
    def square(label, left, right, **more):
        corners = [[left, 0], [right, 0], [right, 3], [left, 3]]
        return {"label": label, "polygon": corners, **more}

    path = tmp_path / "a_gtFine_polygons.json"
    annotation = {
        "imgWidth": 12,
        "imgHeight": 4,
        "objects": [
            square("road", 0, 9),
            square("cargroup", 2, 3),
            square("polegroup", 4, 5),
            square("license plate", 2, 3),
            square("sky", 6, 7, deleted=1),
            square("person", 5, 5),
        ],
    }
    path.write_text(json.dumps(annotation))
    # road 7, car 26, pole group 18 (a label of its own), person 24, unlabeled 0
    assert draw_polygons(path)[1].tolist() == [7, 7, 26, 26, 18, 24, 7, 7, 7, 7, 0, 0]
    path.write_text(json.dumps({**annotation, "objects": [square("cat", 0, 1)]}))
    with pytest.raises(ValueError, match="cat"):
        draw_polygons(path)


@pytest.mark.parametrize(
    "change",
    [
        {"imgWidth": "x"}, {"imgWidth": 0}, {"imgHeight": -4}, {"imgWidth": 10**6}, {"imgHeight": None},
        {"objects": {}}, {"objects": None}, {"objects": ["car"]},
        {"objects": [{"label": None, "polygon": [[0, 0], [1, 0], [1, 1]]}]},
        {"objects": [{"label": ["car"], "polygon": [[0, 0], [1, 0], [1, 1]]}]},
        {"objects": [{"label": "car", "polygon": [[0, 0]]}]},
        {"objects": [{"label": "car", "polygon": [[0], [1], [2]]}]},
        {"objects": [{"label": "car", "polygon": [["a", "b"], [1, 0], [1, 1]]}]},
        {"objects": [{"label": "car", "polygon": [None, [1, 0], [1, 1]]}]},
    ],
)  # fmt: skip
def test_polygons_of_any_content_are_one_line(change, tmp_path):
    path = tmp_path / "a_gtFine_polygons.json"
    path.write_text(json.dumps({"imgWidth": 4, "imgHeight": 4, "objects": []} | change))
    with pytest.raises(InputError, match="a_gtFine_polygons.json: "):
        draw_polygons(path)
    path.write_text("[" * 200_000)
    with pytest.raises(InputError, match="a_gtFine_polygons.json: "):
        draw_polygons(path)


def test_labels_of_one_name_in_two_spellings_are_refused(gta, convert):
    shutil.copy(gta / "labels/00001.png", gta / "labels/00001.PNG")
    status, errors = convert("gta", gta)
    assert (
        status == 2
        and "1 labels have more than one file, such as 00001.PNG and 00001.png" in errors
    )


def test_a_converted_label_in_another_spelling_is_no_label(gta, convert):
    convert("gta", gta)
    (gta / "labels/00001_labelTrainIds.png").rename(gta / "labels/00001_labelTrainIds.PNG")
    status, errors = convert("gta", gta)
    assert status == 0, errors
    assert not list(gta.glob("labels/*TrainIds_labelTrainIds.png"))


def test_a_folder_in_place_of_the_statistics_is_found_before_converting(gta, convert):
    (gta / "sample_class_stats.json").mkdir()
    status, errors = convert("gta", gta)
    assert status == 2 and "sample_class_stats.json is a folder" in errors
    assert not list(gta.glob("labels/*_labelTrainIds.png"))


def test_training_does_not_find_labels_below_another_name(gta, tmp_path, monkeypatch, capsys):
    for name, expected in (("mine", "Rename"), (gta.name, "PPPC_CONVERTED=")):
        tool = str(TOOLS / "gta.py")
        monkeypatch.setattr(sys, "argv", [tool, str(gta), "--nproc", "1", "--out-dir",
                                          str(tmp_path / "out" / name)])  # fmt: skip
        with pytest.raises(SystemExit):
            runpy.run_path(tool, run_name="__main__")
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("name", ["00001.png", "00001.PNG", "00001.tif"])
def test_an_output_of_a_label_that_was_replaced_is_outdated(name, gta, ids, convert, monkeypatch):
    source, output = gta / "labels" / name, gta / "labels/00001_labelTrainIds.png"
    with Image.open(gta / "labels/00001.png") as label:
        label.load()
        (gta / "labels/00001.png").unlink()
        label.save(source, "PNG" if name.lower().endswith("png") else "TIFF")
    convert("gta", gta)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(gta.parent))
    split = SPLITS["gta_train"]

    def outdated():
        return outdated_labels(split, {str(output): stamp_of(str(output))[0]})

    assert outdated() == []
    Image.fromarray(ids[1]).save(source)
    (problem,) = outdated()
    assert problem.startswith(f"{output}: was made from another label") and str(source) in problem
    source.unlink()
    assert outdated() == []  # nothing to compare with


def test_training_sees_labels_that_are_out_of_date(datasets_root, tmp_path, monkeypatch):
    shutil.copytree(datasets_root, tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    cfg = tiny_config(tmp_path / "run")
    check_data(cfg)
    labels = sorted((tmp_path / "data/gta/labels").glob("0000[0-9].png"))
    shutil.copy2(labels[0], labels[1])  # with the date of the other
    with pytest.raises(InputError, match=r"gta_train: 1 of 8 labels are out of date.*gta\.py\."):
        check_data(cfg)
    (label, *_) = (tmp_path / "data/cityscapes/gtFine/val").glob("*/*_labelIds.png")
    label.write_bytes(label.read_bytes() + b" ")
    with pytest.raises(InputError, match=r"cityscapes_val: 1 of 3 labels are out of date"):
        check_data(tiny_config(tmp_path / "run"), training=False)


def test_the_flag_reads_numbers_whatever_the_palette_shows(gta, convert):
    with Image.open(gta / "labels/00001.png") as label:
        numbers = np.asarray(label)
    strange = Image.fromarray(numbers, "P")
    strange.putpalette([value % 256 for value in range(7, 7 * 769, 7)])
    strange.save(gta / "labels/00001.png")
    status, errors = convert("gta", gta)
    assert status == 1 and "00001.png" in errors and "--numbers-are-ids of a converter" in errors
    assert convert("gta", gta, "--numbers-are-ids") == (0, ANY)
    with Image.open(gta / "labels/00001_labelTrainIds.png") as output:
        np.testing.assert_array_equal(np.asarray(output), map_plainly(numbers))


def test_large_labels_are_counted_exactly():
    ids = np.zeros((4097, 4099), np.uint8)  # more pixels than float32 can count
    ids[:, 1:] = 7
    space = LABEL_SPACES["gta"]
    assert count_train_ids(to_train_ids("a.png", ids, space), space) == {0: 4097 * 4098}
