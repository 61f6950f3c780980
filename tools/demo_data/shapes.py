"""Painted faces, and the shapes that they are made of.

World coordinates are meters: x to the right, y up, z ahead. Shapes are drawn in a plane, `(..., 2)`
arrays of (along, up), and placed either facing the camera (along is x) or lengthwise in the street
(along is z).
"""

from typing import NamedTuple

import numpy as np
from pppc.data.train_ids import CITYSCAPES_CLASSES

TRAIN_ID = {name: train_id for train_id, name in enumerate(CITYSCAPES_CLASSES)}

Color = tuple[float, float, float]

_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


class Face(NamedTuple):
    """Polygons of one color: points (K, N, 3); color and emission RGB, 0 to 1."""

    points: np.ndarray
    color: Color
    train_id: int
    emission: Color | None = None


def box(left: float, right: float, bottom: float, top: float) -> np.ndarray:
    """A rectangle in a plane: (1, 4, 2)."""
    return np.array([[(left, bottom), (left, top), (right, top), (right, bottom)]], np.float32)


def boxes(lefts: np.ndarray, width: float, bottom: float, top: float) -> np.ndarray:
    """Rectangles beside each other in a plane: (K, 4, 2)."""
    return box(0, width, bottom, top) + np.stack([lefts, 0 * lefts], axis=-1)[:, None]


def disc(along: float, up: float, radius: float) -> np.ndarray:
    """A circle in a plane: (1, 12, 2)."""
    return (_CIRCLE * radius + (along, up)).astype(np.float32)[None]


def bar(start: tuple[float, float], end: tuple[float, float], thickness: float) -> np.ndarray:
    """A thick line in a plane: (1, 4, 2)."""
    start, end = np.asarray(start), np.asarray(end)
    along, up = (end - start) / np.linalg.norm(end - start) * thickness / 2
    side = np.array([-up, along])
    return np.array([[start - side, start + side, end + side, end - side]], np.float32)


def place(shape: np.ndarray, x: float, z: float, lengthwise: bool = False) -> np.ndarray:
    """Stand shapes (K, N, 2) up in the world: (K, N, 3)."""
    points = np.empty((*shape.shape[:2], 3), np.float32)
    points[...] = x, 0, z
    points[..., 2 if lengthwise else 0] += shape[..., 0]
    points[..., 1] = shape[..., 1]
    return points


def shade(color: Color, factor: float) -> Color:
    """A color made darker or brighter."""
    return tuple(min(1.0, channel * factor) for channel in color)


class Drawing:
    """Collects the faces of one thing that stands at (x, z)."""

    def __init__(self, x: float, z: float, train_id: int, lengthwise: bool = False):
        self.faces: list[Face] = []
        self.x, self.z, self.train_id, self.lengthwise = x, z, train_id, lengthwise

    def add(self, shape, color, train_id=None, emission=None):
        points = place(shape, self.x, self.z, self.lengthwise)
        self.faces.append(
            Face(points, color, self.train_id if train_id is None else train_id, emission)
        )


def deck(x: float, width: float, start: float, end: float, up: float) -> np.ndarray:
    """A level rectangle in the world, such as a roof: (1, 4, 3)."""
    left, right = x - width / 2, x + width / 2
    corners = [(left, up, start), (left, up, end), (right, up, end), (right, up, start)]
    return np.array([corners], np.float32)
