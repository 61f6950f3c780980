"""COCO's annotations as labels: panoptic, stuff and instances."""

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from ...errors import InputError
from ..images import open_whole
from .drawing import VOID, Annotations, Drawing, numbers_of, with_background


def coco_panoptic(path: Path, content: dict) -> Annotations:
    """Masks whose colors are segments, in a folder that is named as the JSON file; 0 means nothing.

    Raises:
        InputError: there is no such folder.
    """
    categories = content["categories"]
    numbers = numbers_of(path, (category["id"] for category in categories))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise InputError(f"{path}: its masks lie in a folder of its name, and {folder} is none")
    drawings = {}
    for annotation in content["annotations"]:
        mask = str(folder / annotation["file_name"])
        segments = {
            segment["id"]: numbers[segment["category_id"]]
            for segment in annotation["segments_info"]
        }
        draw = partial(_draw_segments, mask, segments)
        drawings[names[annotation["image_id"]]] = Drawing(draw, (str(path), mask))
    return Annotations(
        "COCO panoptic",
        {numbers[category["id"]]: category["name"] for category in categories},
        drawings,
        {numbers[c["id"]]: tuple(c["color"]) for c in categories if "color" in c},
    )


def _draw_segments(mask: str, segments: Mapping[int, int]) -> np.ndarray:
    colors = np.asarray(open_whole(mask)[1].convert("RGB"), np.uint32)
    ids, places = np.unique(colors @ np.array([1, 256, 65536], np.uint32), return_inverse=True)
    if unknown := sorted(set(ids.tolist()) - segments.keys() - {0}):
        raise InputError(f"{mask}: its segment {unknown[0]} is none of its annotation's")
    drawn = np.array([segments.get(i, VOID) for i in ids.tolist()], np.uint8)
    return drawn[places].reshape(colors.shape[:2])


def coco_objects(path: Path, content: dict) -> Annotations:
    """Polygons and run lengths, small objects before large ones.

    What none covers is the background; of stuff it means nothing.
    """
    categories = content["categories"]
    used = {annotation["category_id"] for annotation in content["annotations"]}
    above = {category.get("supercategory") for category in categories}
    # Roboflow's first category stands for all and has no object.
    kept = {
        category["id"]: category["name"]
        for category in categories
        if category["id"] in used or category["id"] or category["name"] not in above
    }
    numbers = numbers_of(path, kept)
    classes = {numbers[category]: name for category, name in kept.items()}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # it prints
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
    # Stuff covers all but what its makers left out; objects stand before a background.
    unlabeled = VOID
    if not path.name.startswith("stuff") and not all(91 < category < 184 for category in kept):
        classes, unlabeled = with_background(classes)
    rules = repr((numbers, unlabeled))
    drawings = {
        image["file_name"]: Drawing(
            partial(_draw_objects, path, coco, image["id"], numbers, unlabeled), (str(path),), rules
        )
        for image in content["images"]
    }
    kind = "COCO stuff" if unlabeled == VOID else "COCO instances"
    return Annotations(kind, classes, drawings)


def _draw_objects(
    path: Path, coco: COCO, image_id: int, numbers: Mapping[int, int], unlabeled: int
) -> np.ndarray:
    image = coco.imgs[image_id]
    label = np.full((image["height"], image["width"]), unlabeled, np.uint8)
    objects = coco.imgToAnns[image_id]
    # Small ones stand before large ones.
    for item in sorted(objects, key=lambda item: item.get("area", 0), reverse=True):
        if not item.get("segmentation"):
            raise InputError(
                f"{path}: annotation {item.get('id')} has no segmentation, a box alone is no label"
            )
        mask = coco.annToMask(item)
        if mask.shape != label.shape:
            raise InputError(f"{path}: annotation {item.get('id')} has another size than its image")
        label[mask > 0] = numbers[item["category_id"]]
    return label
