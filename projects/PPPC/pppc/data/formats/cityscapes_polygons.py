"""Cityscapes' polygon annotations, drawn as the data set's own tools draw them."""

import json
import os

import numpy as np
from PIL import Image, ImageDraw

from ...errors import InputError
from ..train_ids import LABEL_SPACES

_VOID_IDS = {
    "unlabeled": 0, "ego vehicle": 1, "rectification border": 2, "out of roi": 3, "static": 4,
    "dynamic": 5, "ground": 6, "parking": 9, "rail track": 10, "guard rail": 14, "bridge": 15,
    "tunnel": 16, "polegroup": 18, "caravan": 29, "trailer": 30,
}  # fmt: skip
_CITYSCAPES = LABEL_SPACES["cityscapes"]
LABEL_IDS = _VOID_IDS | {
    _CITYSCAPES.class_names[train_id]: label_id
    for label_id, train_id in _CITYSCAPES.id_to_train_id.items()
}
_LARGEST = 65535  # pixels of a side
_NOT_DRAWN = "license plate"  # what is below it keeps its label


def draw_polygons(path: str | os.PathLike) -> np.ndarray:
    """The label ids (H, W) uint8 of a `*_gtFine_polygons.json`; later objects cover earlier ones.

    Raises:
        InputError: the file isn't such an annotation, or names a label that Cityscapes hasn't.
    """
    try:
        with open(path, encoding="utf-8") as file:
            annotation = json.load(file)
        size = int(annotation["imgWidth"]), int(annotation["imgHeight"])
        if not all(1 <= length <= _LARGEST for length in size):
            raise ValueError(f"an image of {size[0]}x{size[1]}")
        image = Image.new("L", size, LABEL_IDS["unlabeled"])
        drawing = ImageDraw.Draw(image)
        if not isinstance(annotation["objects"], list):
            raise TypeError("objects is no list")
        for item in annotation["objects"]:
            if not item.get("deleted"):
                _draw(drawing, item["label"], item["polygon"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    # A file may hold anything, and what draws it raises errors of many types.
    except Exception as error:
        raise InputError(
            f"{path}: not an annotation with polygons ({error!r}): get it again"
        ) from error
    return np.asarray(image)


def _draw(drawing: ImageDraw.ImageDraw, name: str, polygon: list) -> None:
    if name == _NOT_DRAWN:
        return
    # "cargroup" is several cars that could not be told apart; "polegroup" is a label.
    label_id = LABEL_IDS.get(name, LABEL_IDS.get(name.removesuffix("group")))
    if label_id is None:
        raise InputError(f"{name!r} is no label of Cityscapes")
    drawing.polygon([(float(x), float(y)) for x, y in polygon], fill=label_id)
