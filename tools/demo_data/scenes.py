"""Random streets of the demo data: what stands where, in which colors.

A scene is a list of painted faces (see shapes.py), back to front: the ground, the houses and
gardens along the street, and the things on it. A style holds the statistics of a data set.
"""

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from . import objects
from .shapes import TRAIN_ID, Color, Face, Part, box, boxes, flat, place, shade

NEAR, FAR = 0.9, 110.0  # meters ahead of the camera that the ground spans

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """What a data set's streets look like (styles.yaml): sizes in meters, counts as means of a street."""

    palette: Mapping[
        str, tuple[Range, Range, Range]
    ]  # hue, saturation and value of what is painted
    road_half_width: Range = (3.8, 5.8)
    sidewalk_width: Range = (3.0, 8.0)
    building_height: Range = (9.0, 22.0)
    building_fraction: float = 0.52  # of the street's sides
    sunny: float = 0.25  # probability of a hard, low sun; its light falls on one side of the street
    parked: float = 0.32  # share of the places at the kerb that cars take
    driving: float = 1.5
    persons: float = 7.0
    riders: float = 1.6
    motorcycles: float = 0.8
    bicycles: float = 1.8
    trucks: float = 0.4
    buses: float = 0.3
    trees: float = 5.0
    signs: float = 3.5
    train: float = 0.08  # probability of a tram


@dataclass(frozen=True)
class Scene:
    """Faces back to front, and the sky behind them."""

    ground: list[Face]
    shadows: list[Face]  # dark areas on the ground
    standing: list[Face]
    sky_top: Color
    sky_horizon: Color


def _flat(left: float, right: float, start: float, end: float, color: Color, name: str) -> Face:
    """A rectangle on the ground."""
    return Face(flat(left, right, start, end), color, TRAIN_ID[name])


def _grid(width: float, height: float, spacing: float, size: float) -> np.ndarray:
    """Windows of a front: (K, 4, 2), from 4 m up, one row for each storey of 3 m."""
    lefts = np.arange((width % spacing) / 2 + 0.3, width - size, spacing)
    bottoms = np.arange(4.0, height - 1.7, 3.0)
    corner = np.stack(np.meshgrid(lefts, bottoms), axis=-1).reshape(-1, 1, 2)
    outline = np.array([[(0, 0), (0, 1.7), (size, 1.7), (size, 0)]])
    return (corner + outline).astype(np.float32)


class _Street:
    """Draws one street; every method adds a part of it."""

    def __init__(self, style: Style, rng: np.random.Generator):
        self.style, self.rng = style, rng
        self.half_width = rng.uniform(*style.road_half_width)
        self.sidewalk = rng.uniform(*style.sidewalk_width)
        self.front = self.half_width + self.sidewalk  # where the houses and gardens begin
        self.crossing = rng.uniform(15, 45)  # where a side street crosses, in meters ahead
        self.has_crossing = rng.random() < 0.5
        self.sunny = rng.random() < style.sunny
        self.sun_side = rng.choice((-1, 1))
        self.ground: list[Face] = []
        self.shadows: list[Face] = []
        self.structures: list[tuple[float, list[Face]]] = []
        self.things: list[tuple[float, list[Face]]] = []

    def color(self, name: str) -> Color:
        """A color, RGB from 0 to 1, drawn evenly from a range of the palette."""
        hue, saturation, value = (self.rng.uniform(*limits) for limits in self.style.palette[name])
        return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)

    def draw(self) -> Scene:
        self._draw_ground()
        self._draw_end_of_street()
        for side in (-1, 1):
            self._draw_side(side)
            self._draw_street_furniture(side)
            self._draw_parked(side)
        self._draw_traffic()
        self._draw_people()
        standing = []
        for layer in (self.structures, self.things):
            for _, faces in sorted(layer, key=lambda item: -item[0]):
                standing += faces
        sky = self.color("sky top"), self.color("sky horizon")
        return Scene(self.ground, self.shadows, standing, *sky)

    def _draw_ground(self) -> None:
        road, pavement = self.color("road"), self.color("sidewalk")
        front, half_width = self.front, self.half_width
        self.ground += [
            _flat(-200, 200, NEAR, FAR * 3, self.color("terrain"), "terrain"),
            _flat(-front, front, NEAR, FAR, pavement, "sidewalk"),
        ]
        if self.rng.random() < 0.4:  # a green strip along the kerb
            green, strip = self.color("terrain"), half_width + 0.5 * self.sidewalk
            self.ground.append(_flat(-strip, strip, NEAR, FAR, green, "terrain"))
        kerb = half_width + 0.3
        self.ground.append(_flat(-kerb, kerb, NEAR, FAR, shade(pavement, 1.12), "sidewalk"))
        darker = shade(pavement, 0.8)
        for joint in np.arange(NEAR + 1, 30, 2.0):  # joints between the slabs of the sidewalk
            line = _flat(kerb, front, joint, joint + 0.07, darker, "sidewalk")
            mirrored = line.points * np.array([-1, 1, 1], np.float32)
            self.ground.append(line._replace(points=np.concatenate([line.points, mirrored])))
        self.ground.append(_flat(-half_width, half_width, NEAR, FAR, road, "road"))
        if self.has_crossing:
            self.ground.append(_flat(-90, 90, self.crossing, self.crossing + 8, road, "road"))
        self._draw_marks(road)

    def _draw_marks(self, road: Color) -> None:
        mark = self.color("lane mark")
        num_lanes = max(2, 2 * round(self.half_width / 3.5))
        for lane in np.linspace(-self.half_width, self.half_width, num_lanes + 1)[1:-1]:
            for start in np.arange(self.rng.uniform(-4, 2), 70, 6.0):
                if self.has_crossing and abs(start - self.crossing - 3) < 7:
                    continue
                start, end = max(start, NEAR), max(start + 3, NEAR)
                self.ground.append(_flat(lane - 0.08, lane + 0.08, start, end, mark, "road"))
        if self.has_crossing and self.rng.random() < 0.6:
            for left in np.arange(-self.half_width + 0.3, self.half_width - 0.5, 1.1):
                start = self.crossing - 3.5
                self.ground.append(_flat(left, left + 0.55, start, start + 2.5, mark, "road"))
        if self.rng.random() < 0.5:  # a patch of newer asphalt
            left, start = self.rng.uniform(-self.half_width, 0), self.rng.uniform(3, 15)
            patch = _flat(left, left + 2.2, start, start + 8, shade(road, 0.87), "road")
            self.ground.insert(-1, patch)

    def _draw_end_of_street(self) -> None:
        faces: list[Face] = []
        for left in np.arange(-60, 60, 12.0):
            x = left + self.rng.uniform(0, 6)
            if self.rng.random() < self.style.building_fraction:
                height = self.rng.uniform(*self.style.building_height) * self.rng.uniform(0.8, 2.0)
                color = self.color("building")
                front = (box(0, 12, 0, height), color)
                windows = (_grid(12, height, 2.4, 1.2), shade(color, 0.7))
                faces += place([front, windows], "building", left, FAR)
            else:
                height = self.rng.uniform(6, 14)
                tree = objects.tree(self.rng, self.color("vegetation"), height)
                faces += place(tree, "vegetation", x, FAR)
        self.structures.append((FAR, faces))

    def _draw_side(self, side: int) -> None:
        """Houses, and gaps between them, from the camera to the end of the street."""
        start = self.rng.uniform(-10, 0)
        while start < FAR - 5:
            end = min(start + self.rng.uniform(8, 22), FAR)
            if self.has_crossing and start < self.crossing + 8 and end > self.crossing - 1:
                if start > self.crossing - 6:
                    start = self.crossing + 9
                    continue
                end = self.crossing - 1
            if end > NEAR + 1:
                is_house = self.rng.random() < self.style.building_fraction
                faces = (self._house if is_house else self._garden)(side, max(start, NEAR), end)
                self.structures.append((max(start, NEAR), faces))
            start = end + (self.rng.uniform(1, 4) if self.rng.random() < 0.25 else 0)

    def _house(self, side: int, start: float, end: float) -> list[Face]:
        x, length = side * self.front, end - start
        height = self.rng.uniform(*self.style.building_height)
        color, glass = self.color("building"), self.color("window")
        end_wall = [
            (box(0, 14, 0, height), shade(color, 0.8)),
            (_grid(14, height, 3.2, 1.2), shade(glass, 0.8)),
        ]
        color = shade(color, 0.55 if self.sunny and side == self.sun_side else 1.0)
        windows = _grid(length, height, self.rng.uniform(2.2, 3.2), self.rng.uniform(1.0, 1.6))
        is_bright = self.rng.random(len(windows)) < 0.2
        front = [
            (box(0, length, 0, height), color),
            (box(0, length, height - 0.5, height), shade(color, 0.75)),  # the cornice
            (windows[~is_bright], glass),
            (windows[is_bright], shade(glass, 1.1)),
        ]
        if self.rng.random() < 0.6:  # shops on the ground floor
            panes = boxes(np.arange(0.6, length - 2.2, 3.0), 2.0, 0.5, 2.8)
            front += [
                (box(0, length, 0, 3.4), shade(self.color("building"), 0.7)),
                (panes, shade(glass, 0.9)),
            ]
            self.rng.random()  # drawn for what is not painted any more; the streets stay the same
        faces = place(end_wall, "building", x if side > 0 else x - 14, start)
        return faces + place(front, "building", x, start, lengthwise=True)

    def _garden(self, side: int, start: float, end: float) -> list[Face]:
        """Trees behind a wall, a fence, a hedge or nothing."""
        faces: list[Face] = []
        for z in np.sort(self.rng.uniform(start, end, self.rng.integers(1, 4)))[::-1]:
            x, height = side * (self.front + self.rng.uniform(2, 6)), self.rng.uniform(4, 9)
            tree = objects.tree(self.rng, self.color("vegetation"), height)
            faces += place(tree, "vegetation", x, max(z, 3.0))
        kind = self.rng.choice(("wall", "fence", "hedge", "open"), p=(0.3, 0.3, 0.1, 0.3))
        length, name, parts = end - start, kind, []
        if kind == "wall":
            color, height = self.color("wall"), self.rng.uniform(1.4, 2.8)
            parts = [
                (box(0, length, 0, height), color),
                (box(0, length, height - 0.15, height), shade(color, 1.2)),
                (boxes(np.arange(1.5, length, 3.0), 0.1, 0, height), shade(color, 0.75)),
            ]
        elif kind == "fence":
            color, height = self.color("fence"), self.rng.uniform(1.1, 2.0)
            parts = [
                (box(0, length, 0, height), shade(self.color("vegetation"), 0.6)),
                (boxes(np.arange(0, length, 0.45), 0.14, 0, height), color),
                *((box(0, length, up, up + 0.16), color) for up in (0.1, height - 0.2)),
            ]
        elif kind == "hedge":
            name, color, height = "vegetation", self.color("vegetation"), self.rng.uniform(0.9, 1.8)
            parts = [
                (box(0, length, 0, height), shade(color, 0.8)),
                (box(0, length, height * 0.8, height), color),
            ]
        return faces + place(parts, name, side * self.front, start, lengthwise=True)

    def _add(self, z: float, faces: list[Face], x: float, width: float, height: float) -> None:
        """Add a thing and its shadow."""
        self.things.append((z, faces))
        reach = self.sun_side * 1.2 * height if self.sunny else 0.15
        corners = [(x - width / 2, z - 0.2), (x + width / 2, z - 0.2),
                   (x + width / 2 + reach, z + 0.5), (x - width / 2 + reach, z + 0.5)]  # fmt: skip
        points = np.array([[(px, 0, pz) for px, pz in corners]], np.float32)
        self.shadows.append(Face(points, (0, 0, 0), TRAIN_ID["road"]))

    def _stand(
        self, z: float, name: str, parts: Iterable[Part], x: float, width: float, height: float
    ) -> None:
        """Add a thing that faces the camera, and its shadow."""
        self._add(z, place(parts, name, x, z), x, width, height)

    def _depths(self, mean: float, nearest: float, farthest: float) -> np.ndarray:
        """Depths of so many things; more of them are near, where they can be seen."""
        count = self.rng.poisson(mean)
        return nearest * (farthest / nearest) ** self.rng.random(count)

    def _at_kerb(self, side: int) -> float:
        return side * (self.half_width + self.rng.uniform(0.4, 0.8))

    def _draw_street_furniture(self, side: int) -> None:
        rng, style, pole = self.rng, self.style, self.color("pole")
        for z in np.arange(rng.uniform(6, 14), 90, rng.uniform(14, 24)):
            x = self._at_kerb(side)
            self._stand(z, "pole", objects.street_lamp(side, pole), x, 0.15, 6.0)
        for z in self._depths(style.trees / 2, 8, 70):
            x = self._at_kerb(side)
            tree = objects.tree(rng, self.color("vegetation"), rng.uniform(3.5, 7))
            self._stand(z, "vegetation", tree, x, 2.0, 4.0)
        for z in self._depths(style.trees / 4, 6, 40):
            bush = objects.bush(rng, self.color("vegetation"))
            self._stand(z, "vegetation", bush, side * (self.front - 0.3), 1.6, 1.0)
        for z in self._depths(style.signs / 2, 6, 35):
            x = self._at_kerb(side)
            self._stand(z, "pole", objects.traffic_sign(rng, pole), x, 0.1, 2.5)
        if self.has_crossing or rng.random() < 0.35:
            z = self.crossing - 4 if self.has_crossing else rng.uniform(8, 25)
            x = self._at_kerb(side)
            self._stand(z, "pole", objects.traffic_light(rng, pole), x, 0.1, 3.5)
        if rng.random() < 0.3:
            start = rng.uniform(5, 20)
            for z in np.arange(start, start + 12, 2.0):
                x = side * (self.half_width + 0.4)
                self._stand(z, "pole", objects.bollard(pole), x, 0.15, 1.0)

    def _draw_parked(self, side: int) -> None:
        rng, style = self.rng, self.style
        x = side * (self.half_width - 1.05)
        for z in np.arange(rng.uniform(5, 11), 60, 6.2):
            at_crossing = self.has_crossing and abs(z - self.crossing - 2) < 10
            if not at_crossing and rng.random() < style.parked:
                faces = objects.car(rng, x, z, self.color("car"), oncoming=side < 0)
                self._add(z, faces, x, 1.9, 0.6)
        for name, mean in (("bicycle", style.bicycles), ("motorcycle", style.motorcycles)):
            for z in self._depths(mean / 2, 5, 25):
                at = side * (self.half_width + rng.uniform(0.7, max(0.8, self.sidewalk - 0.4)))
                from_side = rng.random() < 0.75
                parts = objects.cycle(name, self.color("cycle"), from_side)
                self._stand(z, name, parts, at, 1.2, 0.8)

    def _draw_traffic(self) -> None:
        rng, style, color = self.rng, self.style, self.color
        lane = max(1.6, self.half_width * 0.4)
        taken: dict[int, list[tuple[float, float]]] = {-1: [], 1: []}

        def add(z: float, side: int, length: float, width: float, height: float, draw) -> None:
            """Add a vehicle where no other one is."""
            if all(z > end + 2 or z + length < start - 2 for start, end in taken[side]):
                taken[side].append((z, z + length))
                self._add(z, draw(side * lane), side * lane, width, height)

        for z in self._depths(style.trucks, 9, 45):
            add(z, rng.choice((-1, 1)), 9, 2.5, 1.5,
                lambda x, z=z: objects.truck(rng, x, z, color("truck"), color("car")))  # fmt: skip
        for z in self._depths(style.buses, 9, 40):
            add(z, rng.choice((-1, 1)), 12, 2.6, 1.5,
                lambda x, z=z: objects.bus(rng, x, z, color("bus")))  # fmt: skip
        if rng.random() < style.train:
            z = rng.uniform(8, 25)
            add(z, -1, 30, 2.4, 1.5, lambda x: objects.train(rng, x, z, color("train")))
        for z in self._depths(style.driving, 6, 60):
            add(z, rng.choice((-1, 1)), 5, 1.9, 0.6,
                lambda x, z=z: objects.car(rng, x, z, color("car"), oncoming=x < 0))  # fmt: skip
        if self.has_crossing and rng.random() < 0.6:
            x, z = rng.uniform(-10, 10), self.crossing + rng.uniform(2, 6)
            faces = objects.car(rng, x, z, self.color("car"), crossing=True)
            self._add(z, faces, x, 4.2, 0.6)

    def _draw_people(self) -> None:
        rng, style = self.rng, self.style
        for z in self._depths(style.persons, 5, 35):
            side = rng.choice((-1, 1))
            if rng.random() < 0.2:  # on the road
                x = side * rng.uniform(0.5, self.half_width)
            else:
                x = side * (self.half_width + rng.uniform(0.5, max(0.6, self.sidewalk - 0.3)))
            parts = objects.person(rng, self.color("clothes"), self.color("trousers"))
            self._stand(z, "person", parts, x, 0.5, 1.6)
        for z in self._depths(style.riders, 6, 28):
            x = rng.choice((-1, 1)) * self.half_width * rng.uniform(0.45, 0.95)
            name = "bicycle" if rng.random() < 0.6 else "motorcycle"
            clothes = self.color("clothes"), self.color("trousers")
            parts = objects.cycle(name, self.color("cycle"), rng.random() < 0.5, clothes)
            self._stand(z, name, parts, x, 0.9, 1.4)


def random_scene(style: Style, rng: np.random.Generator) -> Scene:
    """A street in a style."""
    return _Street(style, rng).draw()
