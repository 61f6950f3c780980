"""Data files: what a YAML of folders registers, what is refused, and where it is used."""

import logging
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pppc
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pppc.cli.check import main
from pppc.data.catalog import model_metadata, own_reader
from pppc.data.checks import check_data
from pppc.data.data_file import register_data_file, register_data_file_of
from pppc.data.inspection import check_command
from pppc.errors import InputError

IDS = np.array([[0, 1], [2, 255]], np.uint8)
COLORS = {0: (0, 0, 0), 1: (128, 64, 128), 2: (7, 7, 7), 255: (255, 255, 255)}
NAMES = {0: "sky", 1: "road", 2: "car"}


def save(path: Path, mask: np.ndarray | None = None, kind: str = "L") -> None:
    """A photograph of 2 x 2 pixels, or the mask: "L", "I;16", "1", "P" with a palette, or "RGB" of COLORS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask is None:
        rng = np.random.default_rng(abs(hash(path.name)) % 1000)
        Image.fromarray(rng.integers(0, 255, (2, 2, 3), np.uint8)).save(path)
        return
    if kind == "RGB":
        mask = np.array([[COLORS[value] for value in row] for row in mask.tolist()], np.uint8)
    image = Image.fromarray(mask.astype(np.uint16 if kind == "I;16" else np.uint8))
    if kind == "P":
        image.putpalette([c for i in range(256) for c in (i, 255 - i, 40)])
    (image.convert("1") if kind == "1" else image).save(path)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Registers a data file of these sections and keys, below a folder with a blank in its name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = set(DatasetCatalog.list())

    def register(**content):
        file = tmp_path / "my data" / "mine.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.dump(content, sort_keys=False))
        return register_data_file(file)

    register.root = tmp_path / "my data"
    yield register
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def classes_in(name: str) -> list[list[list[str]]]:
    """The names of the classes of each pixel, "" for ignored ones, of all labels of a data set."""
    reader = own_reader(name)
    names = {number: name for number, name in enumerate(reader.class_names)}
    labels = [reader.read(record["sem_seg_file_name"]) for record in DatasetCatalog.get(name)]
    return [[[names.get(pixel, "") for pixel in row] for row in label.tolist()] for label in labels]


def files_of(name: str) -> list[str]:
    return [Path(record["file_name"]).name for record in DatasetCatalog.get(name)]


def folders(root: Path, mask=IDS, kind="L", target=True) -> dict:
    save(root / "day/images/a.jpg")
    save(root / "day/masks/a.png", mask, kind)
    if target:
        save(root / "night/x.jpg")
    return {"source": {"images": "day/images", "masks": "day/masks"}, "target": {"images": "night"}}


@pytest.mark.parametrize("kind", ["L", "P", "I;16", "RGB"])
def test_masks_of_every_kind_mean_the_same(data, kind):
    more = {"colors": {k: list(COLORS[k]) for k in NAMES}} if kind == "RGB" else {}
    mask = np.where(IDS == 255, 0, IDS) if kind == "RGB" else IDS
    found = data(**folders(data.root, mask, kind), names=NAMES, **more)
    assert found.classes == ("sky", "road", "car") and found.val == ()
    assert (found.source, found.target) == (("mine_source",), ("mine_target",))
    last = "sky" if kind == "RGB" else ""
    assert classes_in("mine_source") == [[["sky", "road"], ["car", last]]]
    assert "sem_seg_file_name" not in DatasetCatalog.get("mine_target")[0]


@pytest.mark.parametrize(
    ("kind", "ending"), [("L", "png"), ("1", "png"), ("P", "gif"), ("L", "tif")]
)
def test_masks_of_0_and_255_are_two_classes(data, kind, ending):
    for name, mask in (("21", [[0, 0], [0, 0]]), ("22", [[0, 255], [255, 0]])):
        save(data.root / f"images/{name}_training.tif")
        path = data.root / f"1st_manual/{name}_manual1.{ending}"
        save(path, np.array(mask, np.uint8), "L")
        if kind != "L":
            with Image.open(path) as image:
                image.convert(kind).save(path)
    found = data(source=".", target=".")
    assert found.classes == ("background", "foreground")
    assert classes_in("mine_source")[1] == [
        ["background", "foreground"],
        ["foreground", "background"],
    ]
    assert data(source=".", names=["retina", "vessel"]).classes == ("retina", "vessel")
    assert classes_in("mine_source")[1][0] == ["retina", "vessel"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"names": NAMES, "label_mapping": {0: "road", 1: 1, 2: 1}}, [["road", "road"], ["road", ""]]),
        ({"names": NAMES, "label_mapping": {1: 2, "other": "ignore"}}, [["", "car"], ["", ""]]),
        ({"names": {5: "sky", 9: "car"}, "label_mapping": {0: 5, 1: "ignore", 2: "Car"}},
         [["sky", ""], ["car", ""]]),
        ({"names": ["road", "car"], "reduce_zero_label": True}, [["", "road"], ["car", ""]]),
        ({"names": NAMES, "ignore_index": [0, 255]}, [["", "road"], ["car", ""]]),
        ({"names": {**NAMES, 255: "moon"}}, [["sky", "road"], ["car", "moon"]]),
    ],
)  # fmt: skip
def test_numbers_become_classes(data, keys, expected):
    data(**folders(data.root), **keys)
    assert classes_in("mine_source") == [expected]


@pytest.mark.parametrize("kind", ["I;16", "TIFF"])
def test_numbers_above_255_are_the_classes_that_list_them(data, kind):
    """As in Cityscapes' instanceIds: 1000 times the class, and the instance."""
    mask = np.array([[7, 26001], [26000, 514]], np.uint16)  # 514 is twice 257
    content = folders(data.root)
    ending = "tif" if kind == "TIFF" else "png"
    Image.fromarray(mask).save(data.root / f"day/masks/a.{ending}")
    if kind == "TIFF":
        (data.root / "day/masks/a.png").unlink()
    found = data(
        **content, names=["road", "car"], label_mapping={7: 0, "26000-26999": "car", 514: "ignore"}
    )
    assert found.classes == ("road", "car")
    assert classes_in("mine_source") == [[["road", "car"], ["car", ""]]]
    data(**content, names={7: "road", 26001: "car", 26000: "bus", 514: "sky"})
    assert classes_in("mine_source") == [[["road", "car"], ["bus", "sky"]]]
    data(**content, names=["road"], label_mapping={7: 0, "other": "ignore"})
    with pytest.raises(
        InputError, match=f"a.{ending}: holds the value 26001.*'24000-24999': person"
    ):
        classes_in("mine_source")
    data(**content, names=["road", "car"], label_mapping={7: 0, "26000-26999": 1})
    with pytest.raises(
        InputError, match=r"value 514 is none of .* label IDs \(7, 26000, .*\.\.\.\)"
    ):
        classes_in("mine_source")
    with pytest.raises(InputError, match="the masks hold 7, 514, 26000, 26001: give names"):
        data(**content)


def test_colors_become_classes_many_to_one_also_gray_ones(data):
    mapping = {"0,0,0": "ignore", "(128, 64, 128)": "road", "#070707": "road", "255 255 255": "car"}
    data(**folders(data.root, kind="RGB"), names=["road", "car"], label_mapping=mapping)
    assert classes_in("mine_source") == [[["", "road"], ["road", "car"]]]
    save(data.root / "day/masks/a.png", np.full((2, 2), 255), "RGB")  # one color, and it is gray
    assert classes_in("mine_source") == [[["car", "car"], ["car", "car"]]]


def test_classes_of_sections_are_matched_by_name(data):
    save(data.root / "val/b.png")
    save(data.root / "val/b_mask.png", np.array([[3, 3], [4, 5]], np.uint8))
    sections = folders(data.root)
    val = {"images": "val", "names": {3: "Traffic-Light", 4: "bus", 5: "sky"}}
    source = {**sections["source"], "names": {0: "sky", 1: "traffic_light", 2: "tree"}}
    found = data(source=source, target="night", val=val)
    assert found.classes == ("Traffic-Light", "bus", "sky")  # the model has those of val
    assert classes_in("mine_val") == [[["Traffic-Light", "Traffic-Light"], ["bus", "sky"]]]
    assert classes_in("mine_source") == [[["sky", "Traffic-Light"], ["", ""]]]
    found = data(source={**source, "label_mapping": {"tree": "plant"}}, val=val, target="night",
                 names=["plant", "traffic light"])  # fmt: skip
    assert found.classes == ("plant", "traffic light")
    assert classes_in("mine_source") == [[["", "traffic light"], ["plant", ""]]]
    assert classes_in("mine_val") == [[["traffic light", "traffic light"], ["", ""]]]


def test_masks_beside_images_are_told_by_their_names(data, caplog):
    for name in ("Image_01L", "Image_01R"):
        save(data.root / f"eyes/{name}.jpg")
        save(data.root / f"eyes/{name}_1stHO.png", np.array([[0, 255], [0, 0]], np.uint8), "1")
    data(source="eyes", target="eyes")
    assert files_of("mine_source") == ["Image_01L.jpg", "Image_01R.jpg"] == files_of("mine_target")
    left_out = MetadataCatalog.get("mine_target").list_files().left_out
    assert [len(files) for files in left_out.values()] == [2]
    save(data.root / "street/a.jpg")
    save(data.root / "street/a_night.jpg")  # an image of its own
    save(data.root / "street/a_mask.png", IDS, "L")
    save(data.root / "other/b.jpg")
    save(data.root / "other/b.png", IDS)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    (data.root / "camvid").mkdir()
    Image.fromarray(noise).save(data.root / "camvid/1.png")  # CamVid's masks are of colors, too
    Image.fromarray(noise // 255 * 128).save(data.root / "camvid/1_L.png")
    data(source={"images": "other"}, target="camvid", names=NAMES)
    assert files_of("mine_target") == ["1.png"]
    data(source={"images": "other"}, target="street", names=NAMES)
    assert files_of("mine_target") == ["a.jpg", "a_night.jpg"]
    assert files_of("mine_source") == ["b.jpg"] and classes_in("mine_source")[0][0] == [
        "sky",
        "road",
    ]
    for name in ("Image_01L", "Image_01R"):
        save(data.root / f"eyes/{name}_2ndHO.png", np.array([[0, 255], [0, 0]], np.uint8), "1")
    with pytest.raises(
        InputError, match=r"several kinds.*'\{stem\}_1stHO.png', '\{stem\}_2ndHO.png'"
    ):
        data(source="eyes")
    data(source={"images": "eyes", "masks": "{stem}_2ndHO.png"})
    assert DatasetCatalog.get("mine_source")[1]["sem_seg_file_name"].endswith("01R_2ndHO.png")


def test_lists_patterns_templates_and_folders_in_folders(data):
    for name in ("a", "b", "c"):
        save(data.root / f"images/{name}/0.png")
        save(data.root / f"labels/{name}/0_gt.png", IDS)
    (data.root / "some.txt").write_text("images/a/0.png\n\nimages/c/0.png\n")
    for images, masks, expected in (
        ("images", "labels", "abc"),
        ("images", "labels/{path}_gt.png", "abc"),
        ("some.txt", "labels/**/*_gt.png", "ac"),
        ("images/[ab]/*.png", "labels/*/*.png", "ab"),
        (["images/c", "images/b/0.png"], "labels", "bc"),
    ):
        section = {"images": images, "masks": masks}
        data(source=section, names=NAMES)
        pairs = [(r["file_name"].split("/")[-2], r["sem_seg_file_name"].split("/")[-2])
                 for r in DatasetCatalog.get("mine_source")]  # fmt: skip
        assert pairs == [(name, name) for name in expected], images


WRONG = {
    "there is no key 'maskz', did you mean masks": {"source": {"images": "day/images", "maskz": "x"}},
    "mine.yaml: there is no key 'nmes', did you mean names": {"nmes": NAMES},
    "mine.yaml: target.masks: a target has images alone.*belong to val": {
        "target": {"images": "night", "masks": "day/masks"}
    },
    "source.masks: there is no .*nowhere": {"source": {"images": "day/images", "masks": "nowhere"}},
    "source: there are no masks beside": {"source": {"images": "night"}},
    "names the images themselves": {"source": {"images": "night", "masks": "night/*"}},
    "source: images holds masks, and masks photographs": {
        "source": {"images": "palettes", "masks": "photos"}
    },
    "masks of the target's images: are source and target swapped": {
        "source": {"images": "night", "masks": "day/masks"}, "target": "day/images"},
    "1 of the 1 images of val are images of target, too": {
        "val": {"images": "day/images", "masks": "day/masks"},
        "source": {"images": "night", "masks": "more"}, "target": "day/images"},
    "target: .* are masks": {"target": "palettes"},
    "source: nothing names the classes, the masks hold 0, 1, 2, 255: give names": {"names": None},
    "names: 65536 is no number of a class": {"names": {65536: "road"}},
    "label_mapping: '9-7' is no label.*'24000-24999'": {"label_mapping": {"9-7": 0}},
    "there are 256 classes, a model has 255 at most": {"names": [str(i) for i in range(256)]},
    "no masks beside.*, while the target has some .*day/masks.: are source and target swapped": {
        "source": {"images": "night"}, "target": "day/images"},
    "names, of 1: True is no name: write it in quotes": {"names": {1: True}},
    "label_mapping, of 7: 4 is no class: give one of 0 .sky.": {"label_mapping": {7: 4}},
    "label_mapping: 'tre' is no class that any labels name": {"label_mapping": {"tre": "sky"}},
    "source.label_mapping: 'tre' is no class of these labels: they have sky, road, car": {
        "source": {"images": "day/images", "masks": "day/masks", "label_mapping": {"tre": "sky"}}},
    "label_mapping, of 1: 'tree' is no class: give one of sky, road": {"label_mapping": {1: "tree"}},
    "label_mapping: -1 is no label": {"label_mapping": {-1: 0}},
    "ignore_index is 'x'": {"ignore_index": "x"},
    "colors, of 0: .* is no color": {"colors": {0: [1, 2]}},
    "source: manual1, mask may hold the masks: give masks": {"source": "fundus"},
    "source.1.: has no images": {"source": [{"images": "day/images"}, {"masks": "day/masks"}]},
    "source: the masks hold the colors .* say what they mean": {
        "source": {"images": "day/images", "masks": "colored"}},
    "weight is 0: give a number above 0": {"source": {"images": "day/images", "weight": 0}},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named_with_its_place(data, message):
    content = {**folders(data.root), "names": NAMES} | WRONG[message]
    save(data.root / "palettes/a.png", IDS, "P")
    save(data.root / "colored/a.png", IDS, "RGB")
    save(data.root / "more/x.png", IDS)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    (data.root / "photos").mkdir()
    Image.fromarray(noise).save(data.root / "photos/a.jpg")
    for folder in ("images", "manual1", "mask"):
        save(data.root / f"fundus/{folder}/a.png", None if folder == "images" else IDS)
    with pytest.raises(InputError, match=message) as error:
        data(**{key: value for key, value in content.items() if value is not None})
    assert len(str(error.value).splitlines()) == 1


def test_a_number_without_a_name_is_named_with_its_file(data):
    data(**folders(data.root), names=["sky", "road"])
    with pytest.raises(InputError, match=r"a\.png: value 2 is none of .*0, 1, 255.*label_mapping"):
        classes_in("mine_source")


def test_a_configuration_takes_a_data_file_and_a_run_keeps_it(data, tmp_path, caplog):
    data(**folders(data.root), names=NAMES)
    options = ["DATASETS.FILE", str(data.root / "mine.yaml"), "OUTPUT_DIR", str(tmp_path)]
    cfg = pppc.load_config(pppc.get_config_file("Base-Small.yaml"), options)
    assert cfg.DATASETS.TRAIN == ("mine_source",) and cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 3
    assert model_metadata(cfg).stuff_classes == ["sky", "road", "car"]
    (tmp_path / "config.yaml").write_text(cfg.dump())
    other = tmp_path / "mine.yaml"  # another file of the same name in one process
    other.write_text("{path: my data, source: day, names: [a, b, c, d]}")
    register_data_file(other)
    with pytest.raises(InputError, match="has 4 classes, the model 3"):
        model_metadata(cfg)
    register_data_file_of(cfg)  # each run registers its own
    check_data(cfg, training=False)
    assert model_metadata(cfg).stuff_classes == ["sky", "road", "car"]
    (data.root / "mine.yaml").unlink()
    with pytest.raises(InputError, match="mine.yaml: No such file"):
        pppc.load_config(pppc.get_config_file("Base-Small.yaml"), options)
    with caplog.at_level(logging.INFO):  # a run's own configuration still predicts
        assert pppc.load_config(tmp_path / "config.yaml").DATASETS.TRAIN == ("mine_source",)
    assert "mine.yaml" in caplog.text


def test_check_looks_at_a_data_file_and_says_what_to_mend_first(data, monkeypatch, capsys):
    def check() -> tuple[int, str]:
        (data.root / "mine.yaml").write_text(yaml.dump(content))
        command = ["pppc", "check", str(data.root / "mine.yaml")]
        monkeypatch.setattr(sys, "argv", command[1:])
        status = main()
        assert shlex.split(check_command("mine_source")) == command  # which errors name
        return status, " ".join(capsys.readouterr().out.split())

    content = {**folders(data.root), "names": NAMES | {3: "bus"}, "colors": {1: [200, 10, 10]}}
    monkeypatch.chdir(data.root)
    status, printed = check()
    assert status == 0 and "mine_source 1 1 2x2 in order" in printed
    assert "To mend first: no source label shows bus: label some, or leave them out" in printed
    del content["names"][3]
    assert "To mend first: there is no val: a few labeled images" in check()[1]
    folder = data.root / "output/check_mine"
    with Image.open(folder / "images.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels == (200, 10, 10)).all(2).sum() > 10_000  # a quarter of the label, and the legend
    assert Image.open(folder / "classes.png").size[0] > 500
    # A copy of a target image under another name, with a label, is no image to evaluate on.
    shutil.copy(data.root / "night/x.jpg", data.root / "v.jpg")
    save(data.root / "v_mask.png", IDS)
    content["val"] = {"images": "v.jpg", "masks": "{stem}_mask.png"}
    status, printed = check()
    assert (
        status == 1
        and "To mend first: mine_val: 1 images are images of mine_target, too" in printed
    )
    save(data.root / "v.jpg")
    assert check()[0] == 0
    cut = data.root / "night/x.jpg"
    cut.write_bytes(cut.read_bytes()[:-80])
    status, printed = check()
    assert status == 1 and "To mend first: mine_target: " in printed and "x.jpg" in printed
