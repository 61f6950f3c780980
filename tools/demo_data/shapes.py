"""Painted faces, and the shapes that they are made of.

World coordinates are meters: x to the right, y up, z ahead. Shapes are drawn in a plane, `(..., 2)`
arrays of (along, up), and placed either facing the camera (along is x) or lengthwise in the street
(along is z).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pppc.data.train_ids import CITYSCAPES_CLASSES

TRAIN_ID = {name: train_id for train_id, name in enumerate(CITYSCAPES_CLASSES)}

Color = tuple[float, float, float]
# A shape, its color and, where it is of another class than the thing that it is a part of, the class.
Part = tuple[np.ndarray, Color] | tuple[np.ndarray, Color, str]

_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


class Face(NamedTuple):
    """Polygons of one color: points (K, N, 3); color RGB, 0 to 1."""

    points: np.ndarray
    color: Color
    train_id: int


def box(left: float, right: float, bottom: float, top: float) -> np.ndarray:
    """A rectangle in a plane: (1, 4, 2)."""
    return polygon((left, bottom), (left, top), (right, top), (right, bottom))


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
    return polygon(start - side, start + side, end + side, end - side)


def polygon(*points: tuple[float, float]) -> np.ndarray:
    """Any shape in a plane: (1, N, 2)."""
    return np.array([points], np.float32)


def flat(left: float, right: float, start: float, end: float, up: float = 0) -> np.ndarray:
    """A level rectangle in the world, such as a roof: (1, 4, 3)."""
    corners = [(left, up, start), (left, up, end), (right, up, end), (right, up, start)]
    return np.array([corners], np.float32)


def place(
    parts: Iterable[Part], name: str, x: float, z: float, lengthwise: bool = False
) -> list[Face]:
    """Stand the parts of a thing of a class up in the world."""
    faces = []
    for shape, color, *other in parts:
        points = np.empty((*shape.shape[:2], 3), np.float32)
        points[...] = x, 0, z
        points[..., 2 if lengthwise else 0] += shape[..., 0]
        points[..., 1] = shape[..., 1]
        faces.append(Face(points, color, TRAIN_ID[other[0] if other else name]))
    return faces


def shade(color: Color, factor: float) -> Color:
    """A color made darker or brighter."""
    return tuple(min(1.0, channel * factor) for channel in color)
