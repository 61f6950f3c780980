"""Things that stand in a street of the demo data: vehicles, people, trees, poles, signs.

Everything is a list of painted faces (see shapes.py), back to front.
"""

import numpy as np

from .shapes import TRAIN_ID, Color, Drawing, Face, bar, box, boxes, deck, disc, shade

TIRE: Color = (0.08, 0.08, 0.09)
GLASS: Color = (0.22, 0.27, 0.32)
SKIN: Color = (0.78, 0.58, 0.46)
TAIL_LIGHT: Color = (0.8, 0.08, 0.06)
HEAD_LIGHT: Color = (1.0, 0.95, 0.8)
LAMP: Color = (1.0, 0.75, 0.4)

# Side profiles, as fractions of length (0 is the rear) and height.
_CAR_PROFILES = (
    ((0, 0.2), (0, 0.6), (0.06, 0.68), (0.2, 1), (0.6, 1), (0.78, 0.66), (1, 0.56), (1, 0.2)),
    ((0, 0.2), (0, 0.62), (0.03, 0.9), (0.1, 1), (0.62, 1), (0.76, 0.64), (1, 0.55), (1, 0.2)),
    ((0, 0.2), (0, 0.6), (0.16, 0.66), (0.28, 1), (0.6, 1), (0.74, 0.66), (1, 0.58), (1, 0.2)),
)


def car(rng: np.random.Generator, x, z, color: Color, crossing=False, oncoming=False) -> list[Face]:
    """A car; `crossing` shows its side, else one end and the side turned to the street's middle."""
    length, width, height = rng.uniform(3.8, 4.8), rng.uniform(1.7, 1.9), rng.uniform(1.4, 1.75)
    profile = np.array([_CAR_PROFILES[rng.integers(len(_CAR_PROFILES))]], np.float32)
    windows = [
        np.array([[(0.17, 0.67), (0.26, 0.93), (0.42, 0.93), (0.42, 0.67)]], np.float32),
        np.array([[(0.46, 0.67), (0.46, 0.93), (0.6, 0.93), (0.72, 0.67)]], np.float32),
    ]
    if oncoming:
        for shape in (profile, *windows):
            shape[..., 0] = 1 - shape[..., 0]
    scale = (length, height)
    inner_x = x if crossing else x - np.sign(x) * width / 2
    side = Drawing(inner_x - (length / 2 if crossing else 0), z, TRAIN_ID["car"], not crossing)
    side.add(profile * scale, shade(color, 0.85))
    for window in windows:
        side.add(window * scale, GLASS)
    for wheel in (0.18, 0.82):
        side.add(disc(wheel * length, 0.32, 0.33), TIRE)
        side.add(disc(wheel * length, 0.32, 0.17), (0.5, 0.5, 0.52))
    if crossing:
        return side.faces
    # Seen from above only where the camera is high.
    body = Face(deck(x, width, z, z + length, 0.62 * height), shade(color, 1.05), TRAIN_ID["car"])
    roof = deck(x, 0.84 * width, z, z + 0.6 * length, height)
    end = Drawing(x, z, TRAIN_ID["car"])
    half = width / 2
    end.add(box(-half, -0.6 * half, 0, 0.3), TIRE)
    end.add(box(0.6 * half, half, 0, 0.3), TIRE)
    cabin = np.array([[(-0.97, 0.66), (-0.84, 1), (0.84, 1), (0.97, 0.66)]], np.float32)
    end.add(cabin * (half, height), shade(color, 0.9))
    end.add(cabin * (0.86 * half, 0.94 * height), GLASS)
    end.add(box(-half, half, 0.17 * height, 0.67 * height), color)
    end.add(box(-half, half, 0.17 * height, 0.28 * height), shade(color, 0.45))
    end.add(box(-0.26, 0.26, 0.36 * height, 0.44 * height), (0.85, 0.85, 0.8))
    light = HEAD_LIGHT if oncoming else TAIL_LIGHT
    for left in (-0.95 * half, 0.6 * half):
        lamp = box(left, left + 0.35 * half, 0.5 * height, 0.6 * height)
        end.add(lamp, shade(light, 0.8), emission=light)
    return [body, *side.faces, body._replace(points=roof), *end.faces]


def _long_vehicle(x, z, size, color, train_id, draw_side, draw_end) -> list[Face]:
    """A vehicle in the direction of the street: its roof, side and end.

    Args:
        size: length, width and height.
        color: of the roof.
        draw_side, draw_end: add the shapes of the side and the end to a drawing.
    """
    length, width, height = size
    roof = Face(deck(x, width, z, z + length, height), shade(color, 1.05), train_id)
    side = Drawing(x - np.sign(x) * width / 2, z, train_id, lengthwise=True)
    draw_side(side)
    end = Drawing(x, z, train_id)
    draw_end(end)
    return [roof, *side.faces, *end.faces]


def _tail_lights(end: Drawing, width: float, bottom: float) -> None:
    for left in (-0.48 * width, 0.38 * width):
        end.add(box(left, left + 0.1 * width, bottom, bottom + 0.25), TAIL_LIGHT, None, TAIL_LIGHT)


def truck(rng: np.random.Generator, x, z, cargo: Color, cab: Color) -> list[Face]:
    """A truck: a plain box, a cab ahead of it."""
    length, width, height = rng.uniform(6.5, 9.5), 2.4, rng.uniform(3.1, 3.8)

    def draw_side(side):
        side.add(box(0.74 * length, length, 0.5, 0.78 * height), cab)
        side.add(box(0.84 * length, 0.95 * length, 0.5 * height, 0.72 * height), GLASS)
        side.add(box(0, 0.72 * length, 0.95, height), shade(cargo, 0.85))
        side.add(box(0, length, 0.55, 0.95), (0.15, 0.15, 0.16))
        for wheel in (0.14, 0.27, 0.86):
            side.add(disc(wheel * length, 0.48, 0.48), TIRE)

    def draw_end(end):
        end.add(box(-0.46 * width, -0.2 * width, 0, 0.7), TIRE)
        end.add(box(0.2 * width, 0.46 * width, 0, 0.7), TIRE)
        end.add(box(-width / 2, width / 2, 0.55, 0.95), (0.18, 0.18, 0.19))
        end.add(box(-width / 2, width / 2, 0.95, height), cargo)
        end.add(box(-0.02, 0.02, 0.95, height), shade(cargo, 0.6))
        _tail_lights(end, width, 0.65)

    return _long_vehicle(
        x, z, (length, width, height), cargo, TRAIN_ID["truck"], draw_side, draw_end
    )


def bus(rng: np.random.Generator, x, z, color: Color) -> list[Face]:
    """A bus: a row of large windows over a colored body."""
    length, width, height = rng.uniform(9, 12), 2.5, 3.1
    panes = boxes(np.arange(0.4, length - 1.4, 1.5), 1.3, 1.3, 2.5)

    def draw_side(side):
        side.add(box(0, length, 0.3, height), shade(color, 0.85))
        side.add(panes, GLASS, emission=(0.5, 0.45, 0.3))
        for wheel in (0.25, 0.8):
            side.add(disc(wheel * length, 0.48, 0.48), TIRE)

    def draw_end(end):
        end.add(box(-0.46 * width, 0.46 * width, 0, 0.4), TIRE)
        end.add(box(-width / 2, width / 2, 0.3, height), color)
        end.add(box(-0.42 * width, 0.42 * width, 1.5, 2.55), GLASS)
        end.add(box(-0.3 * width, 0.3 * width, 2.7, 2.95), (0.1, 0.1, 0.1), None, (0.7, 0.4, 0.05))
        _tail_lights(end, width, 0.8)

    return _long_vehicle(x, z, (length, width, height), color, TRAIN_ID["bus"], draw_side, draw_end)


def train(rng: np.random.Generator, x, z, color: Color) -> list[Face]:
    """A tram: longer, higher and slimmer than a bus, two-colored, under a current collector."""
    length, width, height = rng.uniform(22, 30), 2.3, 3.5
    panes = boxes(np.arange(0.4, length - 1.1, 1.2), 1.0, 1.7, 2.7)

    def draw_side(side):
        side.add(box(0, length, 0.25, 1.4), shade(color, 0.85))
        side.add(box(0, length, 1.4, height), (0.75, 0.75, 0.7))
        side.add(panes, GLASS, emission=(0.5, 0.45, 0.3))

    def draw_end(end):
        end.add(box(-width / 2, width / 2, 0.25, 1.4), color)
        end.add(box(-0.48 * width, 0.48 * width, 1.4, height), (0.8, 0.8, 0.75))
        end.add(box(-0.4 * width, 0.4 * width, 1.6, 3.0), GLASS)
        end.add(bar((-0.6, 4.1), (0.6, 4.1), 0.1), (0.2, 0.2, 0.2))
        end.add(bar((-0.3, height), (0.3, 4.1), 0.08), (0.2, 0.2, 0.2))
        _tail_lights(end, width, 0.7)

    return _long_vehicle(
        x, z, (length, width, height), color, TRAIN_ID["train"], draw_side, draw_end
    )


def _draw_person(drawing: Drawing, rng, top: Color, legs: Color, height: float, train_id: int):
    stride = rng.uniform(0.02, 0.24) * height
    hip = (0.0, 0.5 * height)
    for foot in (-stride, stride):
        drawing.add(bar(hip, (foot, 0.0), 0.1 * height), legs, train_id)
    for hand in (-0.17 * height, 0.17 * height):
        drawing.add(
            bar((hand * 0.6, 0.8 * height), (hand, 0.48 * height), 0.06 * height), top, train_id
        )
    torso = [[(-0.09, 0.47), (-0.12, 0.82), (0.12, 0.82), (0.09, 0.47)]]
    drawing.add(np.array(torso, np.float32) * height, top, train_id)
    drawing.add(disc(0, 0.91 * height, 0.075 * height), SKIN, train_id)
    hair = disc(0, 0.945 * height, 0.065 * height)
    drawing.add(hair, shade(SKIN, rng.uniform(0.15, 0.8)), train_id)


def person(rng: np.random.Generator, x, z, top: Color, legs: Color) -> list[Face]:
    """Someone standing or walking."""
    drawing = Drawing(x, z, TRAIN_ID["person"])
    _draw_person(drawing, rng, top, legs, rng.uniform(1.5, 1.95), TRAIN_ID["person"])
    return drawing.faces


def _bicycle_side(drawing: Drawing, color: Color) -> None:
    for wheel in (-0.52, 0.52):
        drawing.add(disc(wheel, 0.34, 0.35), TIRE)
        drawing.add(disc(wheel, 0.34, 0.27), (0.45, 0.45, 0.45))
    for start, end in (
        ((-0.52, 0.34), (-0.1, 0.85)),
        ((-0.1, 0.34), (0.4, 0.9)),
        ((-0.15, 0.8), (0.4, 0.85)),
        ((0.52, 0.34), (0.38, 1.05)),
    ):
        drawing.add(bar(start, end, 0.09), color)
    drawing.add(bar((-0.25, 0.95), (0.0, 0.95), 0.1), TIRE)
    drawing.add(bar((0.3, 1.05), (0.5, 1.08), 0.08), TIRE)


def _motorcycle_side(drawing: Drawing, color: Color) -> None:
    for wheel in (-0.68, 0.68):
        drawing.add(disc(wheel, 0.32, 0.33), TIRE)
        drawing.add(disc(wheel, 0.32, 0.16), (0.4, 0.4, 0.42))
    body = np.array(
        [
            [(-0.85, 0.62), (-0.6, 0.92), (0.1, 0.8), (0.5, 1.05)]
            + [(0.62, 0.7), (0.2, 0.25), (-0.35, 0.25)]
        ],
        np.float32,
    )
    drawing.add(body, color)
    drawing.add(bar((-0.6, 0.9), (0.05, 0.85), 0.14), TIRE)
    drawing.add(bar((0.66, 0.32), (0.42, 1.15), 0.1), (0.5, 0.5, 0.52))


def _cycle_end(drawing: Drawing, color: Color, width: float) -> None:
    drawing.add(box(-width / 2, width / 2, 0, 0.68), TIRE)
    drawing.add(box(-width, width, 0.5, 0.9), color)
    drawing.add(bar((-0.32, 1.02), (0.32, 1.02), 0.08), (0.25, 0.25, 0.25))
    drawing.add(box(-0.06, 0.06, 0.72, 0.82), TAIL_LIGHT, None, TAIL_LIGHT)


def cycle(
    rng: np.random.Generator,
    name: str,
    x,
    z,
    color: Color,
    from_side: bool,
    rider: tuple[Color, Color] | None = None,
) -> list[Face]:
    """A bicycle or motorcycle, with a rider dressed in two colors (top, legs) or parked."""
    drawing = Drawing(x, z, TRAIN_ID[name])
    if not from_side:
        _cycle_end(drawing, color, width=0.08 if name == "bicycle" else 0.2)
    elif name == "bicycle":
        _bicycle_side(drawing, color)
    else:
        _motorcycle_side(drawing, color)
    if rider is not None:
        _draw_rider(drawing, rider, from_side)
    return drawing.faces


def _draw_rider(drawing: Drawing, clothes: tuple[Color, Color], from_side: bool) -> None:
    top, legs = clothes
    rider = TRAIN_ID["rider"]
    if from_side:
        drawing.add(bar((-0.15, 0.98), (0.2, 0.65), 0.17), legs, rider)
        drawing.add(bar((0.2, 0.7), (0.02, 0.28), 0.13), legs, rider)
        drawing.add(bar((-0.15, 0.95), (0.12, 1.5), 0.3), top, rider)
        drawing.add(bar((0.1, 1.42), (0.42, 1.1), 0.1), top, rider)
        drawing.add(disc(0.2, 1.66, 0.13), SKIN, rider)
        drawing.add(disc(0.2, 1.71, 0.13), shade(top, 0.5), rider)
        return
    for side in (-1, 1):
        drawing.add(bar((side * 0.1, 0.95), (side * 0.17, 0.35), 0.13), legs, rider)
        drawing.add(bar((side * 0.2, 1.42), (side * 0.32, 1.02), 0.1), top, rider)
    drawing.add(box(-0.21, 0.21, 0.88, 1.48), top, rider)
    drawing.add(disc(0, 1.64, 0.13), shade(top, 0.5), rider)


def tree(rng: np.random.Generator, x, z, color: Color, height: float) -> list[Face]:
    """A trunk under a crown of leaves; both are vegetation."""
    drawing = Drawing(x, z, TRAIN_ID["vegetation"])
    drawing.add(bar((0, 0), (0, 0.6 * height), 0.07 * height), (0.3, 0.22, 0.15))
    for _ in range(7):
        along, up = rng.uniform(-0.24, 0.24) * height, rng.uniform(0.5, 0.86) * height
        # Leaves are lighter where they are nearer the sky.
        light = rng.uniform(0.7, 0.9) + 0.35 * (up / height - 0.5)
        drawing.add(disc(along, up, rng.uniform(0.15, 0.24) * height), shade(color, light))
    return drawing.faces


def bush(rng: np.random.Generator, x, z, color: Color) -> list[Face]:
    """A low bush."""
    drawing = Drawing(x, z, TRAIN_ID["vegetation"])
    for _ in range(4):
        radius, light = rng.uniform(0.4, 0.8), rng.uniform(0.7, 1.05)
        drawing.add(disc(rng.uniform(-0.9, 0.9), 0.7 * radius, radius), shade(color, light))
    return drawing.faces


def street_lamp(x, z, color: Color) -> list[Face]:
    """A lamp post whose arm reaches over the road."""
    drawing = Drawing(x, z, TRAIN_ID["pole"])
    arm = -np.sign(x) * 1.6
    drawing.add(box(-0.09, 0.09, 0, 6.5), color)
    drawing.add(bar((0, 6.45), (arm, 6.6), 0.12), color)
    drawing.add(bar((arm * 0.75, 6.5), (arm * 1.15, 6.5), 0.2), (0.9, 0.88, 0.8), None, LAMP)
    return drawing.faces


def bollard(x, z, color: Color) -> list[Face]:
    """A post at the kerb."""
    drawing = Drawing(x, z, TRAIN_ID["pole"])
    drawing.add(box(-0.08, 0.08, 0, 1.0), color)
    return drawing.faces


def traffic_light(rng: np.random.Generator, x, z, color: Color) -> list[Face]:
    """A signal head on a pole."""
    drawing = Drawing(x, z, TRAIN_ID["pole"])
    light = TRAIN_ID["traffic light"]
    drawing.add(box(-0.08, 0.08, 0, 3.0), color)
    drawing.add(box(-0.28, 0.28, 2.5, 3.75), (0.07, 0.09, 0.07), light)
    lit = rng.integers(3)
    for index, glow in enumerate(((0.2, 0.95, 0.45), (0.95, 0.7, 0.1), (0.95, 0.12, 0.1))):
        lamp = disc(0, 2.72 + 0.4 * index, 0.17)
        if index == lit:
            drawing.add(lamp, glow, light, glow)
        else:
            drawing.add(lamp, shade(glow, 0.25), light)
    return drawing.faces


def traffic_sign(rng: np.random.Generator, x, z, pole: Color) -> list[Face]:
    """A disc, a triangle or a plate on a pole."""
    drawing = Drawing(x, z, TRAIN_ID["pole"])
    sign = TRAIN_ID["traffic sign"]
    up, white = rng.uniform(2.2, 2.9), (0.92, 0.92, 0.92)
    drawing.add(box(-0.05, 0.05, 0, up), pole)
    red, blue, yellow = (0.8, 0.1, 0.12), (0.1, 0.25, 0.7), (0.95, 0.8, 0.15)
    kind = rng.integers(4)
    if kind == 0:
        drawing.add(disc(0, up, 0.42), red, sign)
        drawing.add(disc(0, up, 0.27), white, sign)
    elif kind == 1:
        triangle = np.array([[(-0.5, -0.35), (0, 0.5), (0.5, -0.35)]], np.float32)
        drawing.add(triangle + (0, up), red, sign)
        drawing.add(triangle * 0.55 + (0, up), white, sign)
    elif kind == 2:
        drawing.add(box(-0.38, 0.38, up - 0.38, up + 0.38), blue, sign)
        drawing.add(bar((0, up - 0.25), (0, up + 0.25), 0.16), white, sign)
    else:
        diamond = np.array([[(-0.5, 0), (0, 0.5), (0.5, 0), (0, -0.5)]], np.float32)
        drawing.add(diamond + (0, up), white, sign)
        drawing.add(diamond * 0.75 + (0, up), yellow, sign)
    return drawing.faces
