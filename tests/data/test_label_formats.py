"""Labels that people hold: each format in small, as its tools write it, read through a data file."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pppc.errors import InputError
from pycocotools import mask as coco_mask
from test_data_file import classes_in, data, files_of, save  # noqa: F401

ROAD, CAR = (128, 64, 128), (0, 0, 142)
SHARED = Path(__file__).parents[3] / "shared" / "data"


def colored(path: Path, rows: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(rows, np.uint8)).save(path)


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def cvat(root: Path) -> dict:
    """CVAT's "Segmentation mask 1.1": one mask in colors, one of the lines' numbers."""
    written(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
            "car:0,0,142::\nroad:128,64,128::\n")  # fmt: skip
    written(root / "ImageSets/Segmentation/default.txt", "a\nsub folder/b\n")
    for name in ("a", "sub folder/b", "c"):
        save(root / f"JPEGImages/{name}.jpg")
    colored(root / "SegmentationClass/a.png", [[ROAD, CAR], [(0, 0, 0), ROAD]])
    save(root / "SegmentationClass/sub folder/b.png", np.array([[2, 1], [0, 2]]))
    return {"source": "."}


def voc(root: Path) -> dict:
    """Pascal VOC: numbers of a palette, 255 is the border of objects; lists name what is labeled."""
    for name in ("2007_1", "2007_2", "2007_3"):
        save(root / f"JPEGImages/{name}.jpg")
    mask = Image.fromarray(np.array([[7, 7], [0, 255]], np.uint8))
    mask.putpalette(
        [c for i in range(256) for c in (128 * (i & 1), 64 * (i == 7), i)]
    )  # of another program
    (root / "SegmentationClass").mkdir()
    for name in ("2007_1", "2007_2"):
        mask.save(root / f"SegmentationClass/{name}.png")
    written(root / "ImageSets/Segmentation/train.txt", "2007_1\n")
    written(root / "ImageSets/Segmentation/val.txt", "2007_2\n")
    return {"source": ".", "val": {"images": "JPEGImages", "masks": "SegmentationClass"}}


def roboflow(root: Path) -> dict:
    """Roboflow's "semantic segmentation masks": masks beside the images, a blank in the table's head."""
    for split in ("train", "valid"):
        written(
            root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, car\n2, road\n"
        )
        save(root / split / "a_jpg.rf.0a.jpg")
        save(root / split / "a_jpg.rf.0a_mask.png", np.array([[2, 1], [0, 2]]))
    return {"source": ".", "val": "."}


def labelmap_csv(root: Path) -> dict:
    written(root / "labelmap.csv", "name,r,g,b\ncar,0,0,142\nroad,128,64,128\nbackground,0,0,0\n")
    for name, rows in (("a", [[ROAD, CAR], [(0, 0, 0), ROAD]]), ("b", [[(0, 0, 0)] * 2] * 2)):
        save(root / f"images/{name}.png")
        colored(root / f"masks/{name}.png", rows)
    return {"source": "."}


def datumaro(root: Path) -> dict:
    written(root / "dataset_meta.json", {
        "label_map": {"0": "Void", "1": "car", "2": "road"}, "background_label": "0",
        "segmentation_colors": [[0, 0, 0], CAR, ROAD]})  # fmt: skip
    save(root / "images/a.png")
    colored(root / "masks/a.png", [[ROAD, CAR], [(0, 0, 0), ROAD]])
    return {"source": "."}


def coco(root: Path, **more) -> dict:
    """The parts that COCO's files share: categories with a gap, an image of 2 x 2 pixels."""
    save(root / "images/train/a.jpg")
    return {
        "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "road"}],
        "images": [{"id": 7, "file_name": "a.jpg", "width": 2, "height": 2}], **more,
    }  # fmt: skip


def coco_panoptic(root: Path) -> dict:
    """A segment's ID is red + 256 green + 65536 blue, and 0 means nothing."""
    segments = [{"id": 70000, "category_id": 90}, {"id": 300, "category_id": 3}]
    annotation = {"image_id": 7, "file_name": "a.png", "segments_info": segments}
    written(root / "annotations/panoptic_train.json", coco(root, annotations=[annotation]))
    road, car = (112, 17, 1), (44, 1, 0)
    colored(root / "annotations/panoptic_train/a.png", [[road, car], [(0, 0, 0), road]])
    return {"source": {"images": "images/train", "masks": "annotations/panoptic_train"}}


def _objects() -> list[dict]:
    road = coco_mask.encode(np.asfortranarray(np.array([[1, 1], [0, 1]], np.uint8)))
    return [
        {"id": 1, "image_id": 7, "category_id": 3, "area": 1, "iscrowd": 0,
         "segmentation": {"size": [2, 2], "counts": [2, 1, 1]}},
        {"id": 2, "image_id": 7, "category_id": 90, "area": 3, "iscrowd": 0,
         "segmentation": {"size": [2, 2], "counts": road["counts"].decode()}},
    ]  # fmt: skip


def coco_instances(root: Path) -> dict:
    """Small objects stand before large ones; what no object covers is the background."""
    written(root / "annotations/instances_train.json", coco(root, annotations=_objects()))
    written(root / "annotations/instances_val.json", "not read")
    return {"source": "."}


def coco_stuff(root: Path) -> dict:
    """What no stuff covers means nothing."""
    written(root / "annotations/stuff_train.json", coco(root, annotations=_objects()))
    return {"source": {"images": "images/train", "masks": "annotations/stuff_train.json"}}


def brush(mask: list) -> list[int]:
    """Label Studio's run lengths of four equal channels, runs of one value alone."""
    values = np.repeat(np.array(mask, np.uint8).ravel(), 4)
    values[::4] = 77  # not the fourth channel
    bits = f"{values.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "0" + "01" + f"{values.size - 1:04b}" + "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def stroke(label: str, mask: list) -> dict:
    value = {"format": "rle", "rle": brush(mask), "brushlabels": [label]}
    return {"type": "brushlabels", "original_width": 2, "original_height": 2, "value": value}


STROKES = [stroke("road", [[255, 255], [0, 255]]), stroke("car", [[0, 200], [0, 0]])]


def label_studio(root: Path) -> dict:
    """Uploaded files have eight digits before their names; of two annotations the newer one counts."""
    save(root / "images/a.jpg")
    save(root / "images/unlabeled.jpg")
    older = {"result": [stroke("car", [[255, 255], [255, 255]])], "updated_at": "2026-01-01"}
    newer = {"result": STROKES, "updated_at": "2026-02-01"}
    task = {
        "id": 5,
        "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
        "annotations": [newer, older],
    }
    empty = {"id": 6, "data": {"image": "/data/upload/1/0a1b2c3e-unlabeled.jpg"}, "annotations": []}
    written(root / "export.json", [task, empty])
    return {"source": {"images": "images", "masks": "export.json"}}


def label_studio_min(root: Path) -> dict:
    save(root / "images/a.jpg")
    values = [{**s["value"], "original_width": 2, "original_height": 2} for s in STROKES]
    task = {"id": 5, "image": "/data/local-files/?d=images/a.jpg", "tag": values, "annotator": 1}
    written(root / "labels/export.json", [task])
    return {"source": {"images": "images", "masks": "labels"}}


def label_studio_numpy(root: Path) -> dict:
    content = label_studio_png(root)
    for file in (root / "brush").iterdir():
        np.save(file.with_suffix(""), np.asarray(Image.open(file)))
        file.unlink()
    return content


def label_studio_png(root: Path) -> dict:
    """A PNG for each stroke, named by its task; the JSON export beside them names the tasks' images."""
    save(root / "images/a.jpg")
    for label, mask in (("road", [[255, 255], [0, 255]]), ("car", [[0, 255], [0, 0]])):
        name = f"task-5-annotation-9-by-me@here.org-tag-{label}-0.png"
        save(root / "brush" / name, np.array(mask))
    written(root / "export.json", [{"id": 5, "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}}])
    return {"source": {"images": "images", "masks": "brush"}}


def cityscapes(root: Path) -> dict:
    save(root / "leftImg8bit/train/ulm/ulm_0_leftImg8bit.png")
    save(root / "gtFine/train/ulm/ulm_0_gtFine_labelIds.png", np.array([[7, 26], [0, 7]]))
    for other in ("color", "instanceIds", "labelTrainIds"):
        save(root / f"gtFine/train/ulm/ulm_0_gtFine_{other}.png", np.array([[9, 9], [9, 9]]))
    return {"source": {"images": "leftImg8bit/train", "masks": "gtFine/train"}}


def polygons(root: Path) -> dict:
    save(root / "leftImg8bit/train/ulm/ulm_0_leftImg8bit.png")
    objects = [{"label": "road", "polygon": [[0, 0], [1, 0], [1, 1]]},
               {"label": "car", "polygon": [[1, 0], [1, 0], [1, 0]]}]  # fmt: skip
    written(root / "gtFine/train/ulm/ulm_0_gtFine_polygons.json",
            {"imgWidth": 2, "imgHeight": 2, "objects": objects})  # fmt: skip
    return {"source": {"images": "leftImg8bit/train", "masks": "gtFine/train"}}


BACKGROUND, VOID = [["road", "car"], ["background", "road"]], [["road", "car"], ["", "road"]]
EXPECTED = {
    cvat: [BACKGROUND, BACKGROUND],
    voc: [[["car", "car"], ["background", ""]]],
    roboflow: [BACKGROUND],
    labelmap_csv: [BACKGROUND, [["background"] * 2] * 2],
    datumaro: [VOID],
    coco_panoptic: [VOID],
    coco_instances: [BACKGROUND],
    coco_stuff: [VOID],
    label_studio: [BACKGROUND],
    label_studio_min: [BACKGROUND],
    label_studio_png: [BACKGROUND],
    label_studio_numpy: [BACKGROUND],
    cityscapes: [VOID],
    polygons: [VOID],
}


# The page that shows a format, and which of its data files is the sample's.
PAGES = {
    cvat: ("cvat", 0), voc: ("voc", 0), roboflow: ("roboflow", 0), labelmap_csv: ("class_tables", 0),
    datumaro: ("class_tables", 0), coco_panoptic: ("coco", 0), coco_instances: ("coco", 1),
    coco_stuff: ("coco", 2), label_studio: ("label_studio", 0), label_studio_png: ("label_studio", 1),
    cityscapes: ("cityscapes", 0), polygons: ("cityscapes", 0),
}  # fmt: skip


def data_file_of(page: str, number: int) -> dict:
    text = (REPOSITORY / f"docs/label_formats/{page}.md").read_text()
    return yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[number])


@pytest.mark.parametrize(
    ("page", "number"),
    [("index_png", 0), ("index_png", 1), ("binary", 0), ("color_masks", 0), ("color_masks", 1)],
)
def test_the_page_s_data_file_reads_masks(data, page, number):  # noqa: F811
    save(data.root / "images/a.png")
    (data.root / "masks").mkdir()
    if page == "binary":
        save(data.root / "masks/a.png", np.array([[0, 255], [0, 0]]))
    elif page == "color_masks":
        colored(data.root / "masks/a.png", [[ROAD, CAR], [(0, 0, 0), (129, 62, 128)]])
    elif (page, number) == ("index_png", 1):
        wide = np.array([[7, 26001], [514, 7]], np.uint16)
        Image.fromarray(wide).save(data.root / "masks/a.png")
    else:
        save(data.root / "masks/a.png", np.array([[2, 1], [0, 2]]))
    data(**data_file_of(page, number))
    two = [["background", "car"], ["background", "background"]]
    others = VOID if (page, number) == ("index_png", 1) else BACKGROUND
    assert classes_in("mine_source") == [two if page == "binary" else others]


@pytest.mark.parametrize("format_", EXPECTED, ids=lambda format_: format_.__name__)
def test_labels_of_every_format_are_read_without_a_name_of_it(data, format_):  # noqa: F811
    content = format_(data.root)
    before = sorted(os.walk(data.root))
    if format_ in PAGES:
        data(**data_file_of(*PAGES[format_]))
        assert classes_in("mine_source") == EXPECTED[format_]
    found = data(**content)
    assert classes_in("mine_source") == EXPECTED[format_]
    assert {"road", "car"} <= set(found.classes) or format_ is voc
    if "val" in content:
        assert classes_in("mine_val") == EXPECTED[format_]
        assert format_ is not voc or files_of("mine_val") == ["2007_2.jpg"]
    # With names, classes are matched by name, and the others are ignored.
    found = data(names=["CAR", "road"], **content)
    expected = [[[{"car": "CAR", "background": ""}.get(c, c) for c in row] for row in label]
                for label in EXPECTED[format_]]  # fmt: skip
    assert found.classes == ("CAR", "road") and classes_in("mine_source") == expected
    # Classes become one by name, with their colors and numbers.
    present = {c for label in EXPECTED[format_] for row in label for c in row} & {"road", "car"}
    data(names=["thing"], label_mapping=dict.fromkeys(present, "thing"), **content)
    merged = [[["thing" if c in ("car", "road") else "" for c in row] for row in label]
              for label in EXPECTED[format_]]  # fmt: skip
    assert classes_in("mine_source") == merged
    after = [entry for entry in sorted(os.walk(data.root))]
    assert [e[0] for e in after] == [e[0] for e in before]  # nothing is written beside the labels
    assert [sorted(e[2]) for e in after][1:] == [sorted(e[2]) for e in before][1:]


def test_what_is_drawn_follows_the_annotations(data):  # noqa: F811
    content = coco_instances(data.root)
    data(**content)
    (record,) = DatasetCatalog.get("mine_source")
    stamp = os.stat(record["sem_seg_file_name"]).st_mtime_ns
    data(**content)
    assert os.stat(DatasetCatalog.get("mine_source")[0]["sem_seg_file_name"]).st_mtime_ns == stamp
    written(data.root / "annotations/instances_train.json",
            coco(data.root, annotations=_objects()[:1]))  # fmt: skip
    data(**content)
    assert classes_in("mine_source") == [[["background", "car"], ["background", "background"]]]
    os.rename(
        data.root / "annotations/instances_train.json", data.root / "annotations/stuff_train.json"
    )
    data(source={"images": "images/train", "masks": "annotations/stuff_train.json"})
    assert classes_in("mine_source") == [[["", "car"], ["", ""]]]  # by another rule


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labelmap.txt", "car\n", r"labelmap.txt: is no table of classes as of CVAT.*'car' has no color"),
        ("labelmap.txt", "car:1,2,300::\n", r"labelmap.txt: \(1, 2, 300\) is no color"),
        ("_classes.csv", "Pixel Value, Class\nx, car\n", "_classes.csv: is no table of classes"),
        ("dataset_meta.json", "{}", "dataset_meta.json: is no table of classes as of Datumaro"),
        ("masks/all.json", "{", "all.json: is no whole file of annotations"),
        ("masks/all.json", '{"shapes": []}', "neither COCO's nor Label Studio's JSON. Convert it with Datum"),
        ("masks/all.json", json.dumps([{"id": 1, "annotations": [{"result": [
            {"type": "polygonlabels", "value": {"points": []}}]}]}]), "task 1 has polygonlabels, not brush"),
        ("masks/all.json", json.dumps({"images": [], "categories": [], "annotations": []}),
         "none of the 1 images .* is one that .*all.json annotates"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_a_format_is_named(data, file, text, message):  # noqa: F811
    save(data.root / "images/a.png")
    (data.root / "masks").mkdir()
    if not file.startswith("masks"):
        save(data.root / "masks/a.png", np.array([[0, 1], [1, 0]]))
    written(data.root / file, text)
    with pytest.raises(InputError, match=message):
        data(source={"images": "images", "masks": "masks"})


def test_annotations_that_do_not_fit_are_named_when_they_are_drawn(data):  # noqa: F811
    content = coco_panoptic(data.root)
    colored(data.root / "annotations/panoptic_train/a.png", [[(5, 0, 0)] * 2] * 2)
    data(**content)
    with pytest.raises(InputError, match=r"panoptic_train/a.png: its segment 5 is none of"):
        DatasetCatalog.get("mine_source")
    box = {"id": 4, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}
    written(data.root / "annotations/panoptic_train.json", coco(data.root, annotations=[box]))
    data(source={"images": "images/train", "masks": "annotations/panoptic_train.json"})
    with pytest.raises(
        InputError, match="annotation 4 has no segmentation, a box alone is no label"
    ):
        DatasetCatalog.get("mine_source")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real samples beside the repository")
def test_real_samples(data):  # noqa: F811
    data.root.mkdir()
    (data.root / "retina").symlink_to(SHARED / "retina")
    data(source="retina/DRIVE_training", target="retina/CHASEDB1")
    labels = [record["sem_seg_file_name"] for record in DatasetCatalog.get("mine_source")]
    reader = MetadataCatalog.get("mine_source").label_reader
    shares = [float((reader.read(label) == 1).mean()) for label in labels[:3]]
    assert len(labels) == 20 and all(0.05 < share < 0.2 for share in shares)
    assert len(files_of("mine_target")) == 14
    (data.root / "formats").symlink_to(SHARED / "formats")
    for folder in ("voc", "common_semantic_segmentation", "kaggle_image_mask_with_labelmap",
                   "coco_panoptic", "coco_stuff"):  # fmt: skip
        data(source=f"formats/{folder}")
        pixels = [pixel for label in classes_in("mine_source") for row in label for pixel in row]
        assert set(pixels) - {""}, folder
