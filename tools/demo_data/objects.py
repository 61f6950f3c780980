"""Things that stand in a street of the demo data: vehicles, people, trees, poles, signs.

Everything is a list of parts or, where it shows several sides, of painted faces (see shapes.py), back to
front.
"""

from collections.abc import Sequence

import numpy as np

from .shapes import TRAIN_ID, Color, Face, Part, bar, box, boxes, disc, flat, place, polygon, shade

TIRE: Color = (0.08, 0.08, 0.09)
GLASS: Color = (0.22, 0.27, 0.32)
SKIN: Color = (0.78, 0.58, 0.46)
TAIL_LIGHT: Color = (0.8, 0.08, 0.06)
HEAD_LIGHT: Color = (1.0, 0.95, 0.8)
GRAY: Color = (0.5, 0.5, 0.52)

# Side profiles, as fractions of length (0 is the rear) and height.
_CAR_PROFILES = (
    ((0, 0.2), (0, 0.6), (0.06, 0.68), (0.2, 1), (0.6, 1), (0.78, 0.66), (1, 0.56), (1, 0.2)),
    ((0, 0.2), (0, 0.62), (0.03, 0.9), (0.1, 1), (0.62, 1), (0.76, 0.64), (1, 0.55), (1, 0.2)),
    ((0, 0.2), (0, 0.6), (0.16, 0.66), (0.28, 1), (0.6, 1), (0.74, 0.66), (1, 0.58), (1, 0.2)),
)
_CAR_WINDOWS = (
    ((0.17, 0.67), (0.26, 0.93), (0.42, 0.93), (0.42, 0.67)),
    ((0.46, 0.67), (0.46, 0.93), (0.6, 0.93), (0.72, 0.67)),
)


def car(rng: np.random.Generator, x, z, color: Color, crossing=False, oncoming=False) -> list[Face]:
    """A car; `crossing` shows its side, else one end and the side turned to the street's middle."""
    length, width, height = rng.uniform(3.8, 4.8), rng.uniform(1.7, 1.9), rng.uniform(1.4, 1.75)
    shapes = [polygon(*_CAR_PROFILES[rng.integers(len(_CAR_PROFILES))])]
    shapes += [polygon(*window) for window in _CAR_WINDOWS]
    if oncoming:
        for shape in shapes:
            shape[..., 0] = 1 - shape[..., 0]
    profile, *windows = (shape * (length, height) for shape in shapes)
    side: list[Part] = [(profile, shade(color, 0.85)), *((window, GLASS) for window in windows)]
    side += _wheels((0.18 * length, 0.82 * length), 0.32, (0.33, TIRE), (0.17, GRAY))
    if crossing:
        return place(side, "car", x - length / 2, z)
    half = width / 2
    cabin = polygon((-0.97, 0.66), (-0.84, 1), (0.84, 1), (0.97, 0.66))
    end: list[Part] = [
        (box(-half, -0.6 * half, 0, 0.3), TIRE),
        (box(0.6 * half, half, 0, 0.3), TIRE),
        (cabin * (half, height), shade(color, 0.9)),
        (cabin * (0.86 * half, 0.94 * height), GLASS),
        (box(-half, half, 0.17 * height, 0.67 * height), color),
        (box(-half, half, 0.17 * height, 0.28 * height), shade(color, 0.45)),
        (box(-0.26, 0.26, 0.36 * height, 0.44 * height), (0.85, 0.85, 0.8)),
    ]
    light = shade(HEAD_LIGHT if oncoming else TAIL_LIGHT, 0.8)
    end += [
        (box(left, left + 0.35 * half, 0.5 * height, 0.6 * height), light)
        for left in (-0.95 * half, 0.6 * half)
    ]
    # Seen from above only where the camera is high.
    left, right = x - width / 2, x + width / 2
    body = flat(left, right, z, z + length, 0.62 * height)
    roof = flat(x - 0.84 * width / 2, x + 0.84 * width / 2, z, z + 0.6 * length, height)
    body, roof = (Face(deck, shade(color, 1.05), TRAIN_ID["car"]) for deck in (body, roof))
    side_faces = place(side, "car", x - np.sign(x) * width / 2, z, lengthwise=True)
    return [body, *side_faces, roof, *place(end, "car", x, z)]


def _long_vehicle(name: str, x, z, size, color: Color, side: list[Part], end: list[Part]):
    """The faces of a vehicle in the direction of the street, of (length, width, height)."""
    length, width, height = size
    roof = flat(x - width / 2, x + width / 2, z, z + length, height)
    return [
        Face(roof, shade(color, 1.05), TRAIN_ID[name]),
        *place(side, name, x - np.sign(x) * width / 2, z, lengthwise=True),
        *place(end, name, x, z),
    ]


def _tail_lights(width: float, bottom: float) -> list[Part]:
    return [
        (box(left, left + 0.1 * width, bottom, bottom + 0.25), TAIL_LIGHT)
        for left in (-0.48 * width, 0.38 * width)
    ]


def _wheels(places: Sequence[float], up: float, *rings: tuple[float, Color]) -> list[Part]:
    """Wheels at places along a vehicle: rings of (radius, color), the outer one first."""
    return [(disc(place, up, radius), color) for place in places for radius, color in rings]


def truck(rng: np.random.Generator, x, z, cargo: Color, cab: Color) -> list[Face]:
    """A truck: a plain box, a cab ahead of it."""
    length, width, height = rng.uniform(6.5, 9.5), 2.4, rng.uniform(3.1, 3.8)
    side = [
        (box(0.74 * length, length, 0.5, 0.78 * height), cab),
        (box(0.84 * length, 0.95 * length, 0.5 * height, 0.72 * height), GLASS),
        (box(0, 0.72 * length, 0.95, height), shade(cargo, 0.85)),
        (box(0, length, 0.55, 0.95), (0.15, 0.15, 0.16)),
        *_wheels((0.14 * length, 0.27 * length, 0.86 * length), 0.48, (0.48, TIRE)),
    ]
    end = [
        (box(-0.46 * width, -0.2 * width, 0, 0.7), TIRE),
        (box(0.2 * width, 0.46 * width, 0, 0.7), TIRE),
        (box(-width / 2, width / 2, 0.55, 0.95), (0.18, 0.18, 0.19)),
        (box(-width / 2, width / 2, 0.95, height), cargo),
        (box(-0.02, 0.02, 0.95, height), shade(cargo, 0.6)),
        *_tail_lights(width, 0.65),
    ]
    return _long_vehicle("truck", x, z, (length, width, height), cargo, side, end)


def bus(rng: np.random.Generator, x, z, color: Color) -> list[Face]:
    """A bus: a row of large windows over a colored body."""
    length, width, height = rng.uniform(9, 12), 2.5, 3.1
    side = [
        (box(0, length, 0.3, height), shade(color, 0.85)),
        (boxes(np.arange(0.4, length - 1.4, 1.5), 1.3, 1.3, 2.5), GLASS),
        *_wheels((0.25 * length, 0.8 * length), 0.48, (0.48, TIRE)),
    ]
    end = [
        (box(-0.46 * width, 0.46 * width, 0, 0.4), TIRE),
        (box(-width / 2, width / 2, 0.3, height), color),
        (box(-0.42 * width, 0.42 * width, 1.5, 2.55), GLASS),
        (box(-0.3 * width, 0.3 * width, 2.7, 2.95), (0.1, 0.1, 0.1)),
        *_tail_lights(width, 0.8),
    ]
    return _long_vehicle("bus", x, z, (length, width, height), color, side, end)


def train(rng: np.random.Generator, x, z, color: Color) -> list[Face]:
    """A tram: longer, higher and slimmer than a bus, two-colored, under a current collector."""
    length, width, height = rng.uniform(22, 30), 2.3, 3.5
    side = [
        (box(0, length, 0.25, 1.4), shade(color, 0.85)),
        (box(0, length, 1.4, height), (0.75, 0.75, 0.7)),
        (boxes(np.arange(0.4, length - 1.1, 1.2), 1.0, 1.7, 2.7), GLASS),
    ]
    end = [
        (box(-width / 2, width / 2, 0.25, 1.4), color),
        (box(-0.48 * width, 0.48 * width, 1.4, height), (0.8, 0.8, 0.75)),
        (box(-0.4 * width, 0.4 * width, 1.6, 3.0), GLASS),
        (bar((-0.6, 4.1), (0.6, 4.1), 0.1), (0.2, 0.2, 0.2)),
        (bar((-0.3, height), (0.3, 4.1), 0.08), (0.2, 0.2, 0.2)),
        *_tail_lights(width, 0.7),
    ]
    return _long_vehicle("train", x, z, (length, width, height), color, side, end)


def person(rng: np.random.Generator, top: Color, legs: Color) -> list[Part]:
    """Someone standing or walking."""
    height = rng.uniform(1.5, 1.95)
    stride = rng.uniform(0.02, 0.24) * height
    torso = polygon((-0.09, 0.47), (-0.12, 0.82), (0.12, 0.82), (0.09, 0.47))
    return [
        *((bar((0.0, 0.5 * height), (foot, 0.0), 0.1 * height), legs) for foot in (-stride, stride)),
        *((bar((hand * 0.6, 0.8 * height), (hand, 0.48 * height), 0.06 * height), top)
          for hand in (-0.17 * height, 0.17 * height)),
        (torso * height, top),
        (disc(0, 0.91 * height, 0.075 * height), SKIN),
        (disc(0, 0.945 * height, 0.065 * height), shade(SKIN, rng.uniform(0.15, 0.8))),
    ]  # fmt: skip


def _bicycle_side(color: Color) -> list[Part]:
    return [
        *_wheels((-0.52, 0.52), 0.34, (0.35, TIRE), (0.27, (0.45, 0.45, 0.45))),
        (bar((-0.52, 0.34), (-0.1, 0.85), 0.09), color),
        (bar((-0.1, 0.34), (0.4, 0.9), 0.09), color),
        (bar((-0.15, 0.8), (0.4, 0.85), 0.09), color),
        (bar((0.52, 0.34), (0.38, 1.05), 0.09), color),
        (bar((-0.25, 0.95), (0.0, 0.95), 0.1), TIRE),
        (bar((0.3, 1.05), (0.5, 1.08), 0.08), TIRE),
    ]


def _motorcycle_side(color: Color) -> list[Part]:
    body = polygon((-0.85, 0.62), (-0.6, 0.92), (0.1, 0.8), (0.5, 1.05), (0.62, 0.7), (0.2, 0.25),
                   (-0.35, 0.25))  # fmt: skip
    return [
        *_wheels((-0.68, 0.68), 0.32, (0.33, TIRE), (0.16, (0.4, 0.4, 0.42))),
        (body, color),
        (bar((-0.6, 0.9), (0.05, 0.85), 0.14), TIRE),
        (bar((0.66, 0.32), (0.42, 1.15), 0.1), GRAY),
    ]


def cycle(
    name: str, color: Color, from_side: bool, rider: tuple[Color, Color] | None = None
) -> list[Part]:
    """A bicycle or motorcycle, with a rider dressed in two colors (top, legs) or parked."""
    riding = _rider(*rider, from_side) if rider else []
    if from_side:
        return (_bicycle_side if name == "bicycle" else _motorcycle_side)(color) + riding
    width = 0.08 if name == "bicycle" else 0.2
    return [
        (box(-width / 2, width / 2, 0, 0.68), TIRE),
        (box(-width, width, 0.5, 0.9), color),
        (bar((-0.32, 1.02), (0.32, 1.02), 0.08), (0.25, 0.25, 0.25)),
        (box(-0.06, 0.06, 0.72, 0.82), TAIL_LIGHT),
        *riding,
    ]


def _rider(top: Color, legs: Color, from_side: bool) -> list[Part]:
    if from_side:
        return [
            (bar((-0.15, 0.98), (0.2, 0.65), 0.17), legs, "rider"),
            (bar((0.2, 0.7), (0.02, 0.28), 0.13), legs, "rider"),
            (bar((-0.15, 0.95), (0.12, 1.5), 0.3), top, "rider"),
            (bar((0.1, 1.42), (0.42, 1.1), 0.1), top, "rider"),
            (disc(0.2, 1.66, 0.13), SKIN, "rider"),
            (disc(0.2, 1.71, 0.13), shade(top, 0.5), "rider"),
        ]
    limbs: list[Part] = []
    for side in (-1, 1):
        limbs.append((bar((side * 0.1, 0.95), (side * 0.17, 0.35), 0.13), legs, "rider"))
        limbs.append((bar((side * 0.2, 1.42), (side * 0.32, 1.02), 0.1), top, "rider"))
    return [
        *limbs,
        (box(-0.21, 0.21, 0.88, 1.48), top, "rider"),
        (disc(0, 1.64, 0.13), shade(top, 0.5), "rider"),
    ]


def tree(rng: np.random.Generator, color: Color, height: float) -> list[Part]:
    """A trunk under a crown of leaves; both are vegetation."""
    parts = [(bar((0, 0), (0, 0.6 * height), 0.07 * height), (0.3, 0.22, 0.15))]
    for _ in range(7):
        along, up = rng.uniform(-0.24, 0.24) * height, rng.uniform(0.5, 0.86) * height
        # Leaves are lighter where they are nearer the sky.
        light = rng.uniform(0.7, 0.9) + 0.35 * (up / height - 0.5)
        parts.append((disc(along, up, rng.uniform(0.15, 0.24) * height), shade(color, light)))
    return parts


def bush(rng: np.random.Generator, color: Color) -> list[Part]:
    """A low bush."""
    parts = []
    for _ in range(4):
        radius, light = rng.uniform(0.4, 0.8), rng.uniform(0.7, 1.05)
        parts.append((disc(rng.uniform(-0.9, 0.9), 0.7 * radius, radius), shade(color, light)))
    return parts


def street_lamp(side: int, color: Color) -> list[Part]:
    """A lamp post whose arm reaches over the road."""
    arm = -side * 1.6
    return [
        (box(-0.09, 0.09, 0, 6.5), color),
        (bar((0, 6.45), (arm, 6.6), 0.12), color),
        (bar((arm * 0.75, 6.5), (arm * 1.15, 6.5), 0.2), (0.9, 0.88, 0.8)),
    ]


def bollard(color: Color) -> list[Part]:
    """A post at the kerb."""
    return [(box(-0.08, 0.08, 0, 1.0), color)]


def traffic_light(rng: np.random.Generator, color: Color) -> list[Part]:
    """A signal head on a pole."""
    head = (box(-0.28, 0.28, 2.5, 3.75), (0.07, 0.09, 0.07), "traffic light")
    parts: list[Part] = [(box(-0.08, 0.08, 0, 3.0), color), head]
    lit = rng.integers(3)
    for i, glow in enumerate(((0.2, 0.95, 0.45), (0.95, 0.7, 0.1), (0.95, 0.12, 0.1))):
        lamp = glow if i == lit else shade(glow, 0.25)
        parts.append((disc(0, 2.72 + 0.4 * i, 0.17), lamp, "traffic light"))
    return parts


def traffic_sign(rng: np.random.Generator, pole: Color) -> list[Part]:
    """A disc, a triangle or a plate on a pole."""
    up, white = rng.uniform(2.2, 2.9), (0.92, 0.92, 0.92)
    red, blue, yellow = (0.8, 0.1, 0.12), (0.1, 0.25, 0.7), (0.95, 0.8, 0.15)
    triangle = polygon((-0.5, -0.35), (0, 0.5), (0.5, -0.35))
    diamond = polygon((-0.5, 0), (0, 0.5), (0.5, 0), (0, -0.5))
    plate, face = (
        ((disc(0, up, 0.42), red), (disc(0, up, 0.27), white)),
        ((triangle + (0, up), red), (triangle * 0.55 + (0, up), white)),
        ((box(-0.38, 0.38, up - 0.38, up + 0.38), blue), (bar((0, up - 0.25), (0, up + 0.25), 0.16), white)),
        ((diamond + (0, up), white), (diamond * 0.75 + (0, up), yellow)),
    )[rng.integers(4)]  # fmt: skip
    return [(box(-0.05, 0.05, 0, up), pole), (*plate, "traffic sign"), (*face, "traffic sign")]
