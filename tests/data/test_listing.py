"""Which files a split consists of: endings, hidden files, pairs, odd names, the converted tree."""

import logging
import os

import pytest
from pppc.data.catalog import load_split
from pppc.data.listing import IMAGE_ENDINGS, list_split
from pppc.data.splits import Split
from pppc.errors import InputError

SPLIT = Split("camvid", "own/images", ("*",), label_folder="own/labels", hint="Look at own.")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes empty files below a root of an odd name, which becomes DETECTRON2_DATASETS."""
    root = tmp_path / os.fsdecode(b"da ta [1] *? %s {x} \xff\n")

    def make(*paths):
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        return root

    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    return make


def pairs(listing):
    return {
        record["image_id"]: [os.path.basename(record[key]) for key in
                             ("file_name", "sem_seg_file_name", "day_file_name") if key in record]
        for record in listing.records
    }  # fmt: skip


def test_every_usual_ending_in_any_case_and_any_name(make):
    odd = os.fsdecode(b"\xe4 [0-9]*? %d\n.v1")
    names = [
        "a.png",
        "b.PNG",
        "c.jpg",
        "d.JPEG",
        "e.Tiff",
        "f.bmp",
        "g.webp",
        f"{odd}.tif",
        "h.GIF",
        "i.ppm",
    ]
    root = make(*(f"own/images/{name}" for name in names))
    make(*(f"own/labels/{os.path.splitext(name)[0]}.{end}" for name, end in
           zip(names, ["png", "PNG", "tif", "bmp", "png", "Png", "png", "png", "gif",
                "pgm"])))  # fmt: skip
    listing = list_split("own", SPLIT)
    assert list(pairs(listing)) == [*"abcdefghi", odd]
    assert pairs(listing)["b"] == ["b.PNG", "b.PNG"] and pairs(listing)["c"] == ["c.jpg", "c.tif"]
    assert all(os.path.isfile(record["sem_seg_file_name"]) for record in listing.records)
    assert listing.records[0]["file_name"] == str(root / "own/images/a.png")
    assert listing.left_out == {}


def test_what_is_not_taken_is_counted_with_the_reason(make, caplog):
    root = make(
        *(f"own/{kind}/{name}.png" for kind in ("images", "labels") for name in ("a", "b", "._a")),
        "own/images/.DS_Store", "own/images/.cache/c.png", "own/images/Thumbs.db",
        "own/images/notes.txt", "own/images/sub/d.png", "own/labels/z.png", "own/labels/y.png",
    )  # fmt: skip
    (root / "own/images/loop").symlink_to(root / "own/images")  # is not walked for ever
    listing = list_split("own", SPLIT)
    assert list(pairs(listing)) == ["a", "b"]
    assert {reason: sorted(paths) for reason, paths in listing.left_out.items()} == {
        "hidden": [".DS_Store", "._a.png", ".cache/c.png"],
        f"without an ending of images ({', '.join(IMAGE_ENDINGS)})": ["Thumbs.db", "notes.txt"],
        "not named as *": ["sub/d.png"],
        "labels without an image": ["y.png", "z.png"],
    }  # fmt: skip
    with caplog.at_level(logging.INFO):
        load_split("own", SPLIT)
        load_split("own", SPLIT)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "\n" not in record.message
    for text in ("own: 2 images", "3 hidden (.DS_Store, ._a.png, .cache/c.png)",
                 "2 labels without an image (y.png, z.png)"):  # fmt: skip
        assert text in record.message


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["images/a.png", "images/b.png", "images/c.png", "images/d.png", "images/e.png",
          "labels/a.png", "labels/x.png", "labels/y.png"],
         r"own: 4 of 5 images have no label in .*labels \(b\.png, c\.png, d\.png, \.\.\.\), and 2 "
         r"labels no image \(x\.png, y\.png\)\. Look at own\.$"),
        (["images/a.png", "images/a.JPG", "images/b.png", "labels/a.png", "labels/b.png"],
         r"own: 1 images have more than one image file \(a\.\w+ and a\.\w+\): keep one"),
        (["images/a.png", "labels/a.png", "labels/a.tif"], "more than one label file"),
        (["images/._a.png", "labels/a.png"], r"no image \* in .*, but 1 hidden \(\._a\.png\)"),
        (["images/a.png"], "no folder .*own/labels. Look at own.*DETECTRON2_DATASETS"),
    ],
)  # fmt: skip
def test_files_that_miss_each_other_are_all_counted(make, files, message):
    make(*(f"own/{file}" for file in files))
    with pytest.raises(InputError, match=message) as error:
        list_split("own", SPLIT)
    assert len(str(error.value).splitlines()) == 1


def test_files_are_known_by_their_whole_path(make):
    make(*(f"own/{kind}/{city}/0.png" for kind in ("images", "labels") for city in ("x", "y.png")))
    listing = list_split("own", Split("camvid", "own/images", label_folder="own/labels"))
    assert list(pairs(listing)) == ["x/0", "y.png/0"]
    for record in listing.records:
        assert record["sem_seg_file_name"] == record["file_name"].replace("images", "labels")


def test_images_and_labels_in_one_folder_are_told_apart_by_their_endings(make):
    make("own/a.jpg", "own/a.png", "own/b.JPG", "own/b.png")
    split = Split("camvid", "own", ("*.jpg",), image_suffix=".jpg", label_folder="own")
    assert pairs(list_split("own", split)) == {"a": ["a.jpg", "a.png"], "b": ["b.JPG", "b.png"]}


FUNDUS = ("Image_01L.jpg", "Image_01L_1stHO.png", "Image_02R.JPEG", "Image_02R_1stHO.png")


@pytest.mark.parametrize(
    "names",
    [
        {"image_patterns": ("*.jpg",)},
        {"image_suffix": ".jpg"},
        {"image_patterns": ("*.[jJ][pP]*",)},
    ],
)
def test_a_written_ending_is_kept_so_that_masks_become_no_images(names, make):
    make(*(f"own/{name}" for name in FUNDUS))
    target = list_split("own", Split("camvid", "own", **names))
    assert list(pairs(target)) == ["Image_01L", "Image_02R"]
    assert sum(map(len, target.left_out.values())) == 2
    labeled = Split("camvid", "own", **names, label_folder="own", label_suffix="_1stHO.png")
    assert pairs(list_split("own", labeled)) == {
        "Image_01L": ["Image_01L.jpg", "Image_01L_1stHO.png"],
        "Image_02R": ["Image_02R.JPEG", "Image_02R_1stHO.png"],
    }


@pytest.mark.parametrize(
    ("image", "label", "files"),
    [
        ("", "_mask", ["a.png", "a_mask.png"]),
        ("_rgb", "", ["a_rgb.png", "a.png"]),
        ("", ".gif", ["a.tif", "a.gif"]),
        ("_training.tif", "_manual1.gif", ["a_training.tif", "a_manual1.gif"]),
    ],
)
def test_of_one_folder_the_longer_suffix_tells_what_a_file_is(image, label, files, make):
    make(*(f"own/{name}" for name in files))
    split = Split("camvid", "own", image_suffix=image, label_folder="own", label_suffix=label)
    assert pairs(list_split("own", split)) == {"a": files}


def test_images_and_labels_of_the_same_names_are_refused():
    with pytest.raises(InputError, match="in own would be the same files: give image_suffix"):
        Split("camvid", "own", label_folder="own")


def test_converted_labels_are_taken_from_their_own_tree(make, tmp_path, monkeypatch):
    root = make("own/images/a.png", "own/labels/a.png")
    converted = tmp_path / "converted"
    monkeypatch.setenv("PPPC_CONVERTED", str(converted))
    with pytest.raises(InputError, match="PPPC_CONVERTED names no folder: .*converted. Make it"):
        list_split("own", SPLIT)
    converted.mkdir()
    assert list_split("own", SPLIT).label_folder == root / "own/labels"
    (converted / "own/labels").mkdir(parents=True)
    with pytest.raises(InputError, match="no label in .*converted/own/labels"):  # no mixture
        list_split("own", SPLIT)
    (converted / "own/labels/a.png").touch()
    (record,) = list_split("own", SPLIT).records
    assert record["sem_seg_file_name"] == str(converted / "own/labels/a.png")
    assert record["file_name"] == str(root / "own/images/a.png")


def test_day_images_of_any_ending_by_csv_files_of_any_system(make):
    night_and_day = Split(
        "camvid", "own/night", ("*/*",), hint="H", correspondences="own/csv",
        day_folder="own/day",
    )  # fmt: skip
    root = make("own/night/s/0.png", "own/night/s/1.JPG", "own/day/t/8.jpg", "own/day/t/9.png")
    make("own/csv/a.CSV", "own/csv/._a.csv")
    (root / "own/csv/._a.csv").write_bytes(b"\xff\x00")
    rows = "\ufeffx/night/s/0,x/day/t/9\n\nx\\night\\s\\1,x\\day\\t\\8\n"
    (root / "own/csv/a.CSV").write_text(rows)
    assert pairs(list_split("own", night_and_day)) == {
        "s/0": ["0.png", "9.png"], "s/1": ["1.JPG", "8.jpg"],
    }  # fmt: skip
    for text, message in (
        ("night/s/0,day/t/9", r"no CSV file in .* for 1 of 2 images \(.*1\.JPG\)\. H"),
        ("night/s/0,day/t/7", r"row 1 names .*t/7, which is not there"),
        ("night/s/0", "row 1 is not .*SEQUENCE"),
    ):
        (root / "own/csv/a.CSV").write_text(text)
        with pytest.raises(InputError, match=message):
            list_split("own", night_and_day)


def test_two_names_of_one_folder_are_both_listed(make):
    root = make("own/images/a/1.png", "own/images/b/1.png", "own/labels/a/1.png")
    (root / "own/labels/b").symlink_to(root / "own/labels/a")
    split = Split("camvid", "own/images", label_folder="own/labels")
    assert list(pairs(list_split("own", split))) == ["a/1", "b/1"]


@pytest.mark.parametrize("patterns", ["*_rgb.png", (), ""])
def test_patterns_are_a_tuple(patterns):
    with pytest.raises(InputError, match=r"give a tuple, such as"):
        Split("camvid", "own/images", image_patterns=patterns)


def test_csv_files_that_cannot_be_read_are_named(make):
    root = make("own/night/s/0.png", "own/day/t/9.png")
    split = Split(
        "camvid", "own/night", correspondences="own/csv", day_folder="own/day", hint="Hm."
    )
    (root / "own/csv").mkdir()
    (root / "own/csv/z.csv").symlink_to(root / "nowhere")
    with pytest.raises(InputError, match=r"z\.csv can't be read"):
        list_split("own", split)
    (root / "own/csv/z.csv").unlink()
    (root / "own/csv/z.csv").write_text("x" * 200_000)
    with pytest.raises(InputError, match=r"z\.csv can't be read"):
        list_split("own", split)
