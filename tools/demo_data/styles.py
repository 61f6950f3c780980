"""The streets, cameras and looks of the demo data sets."""

from dataclasses import replace

import numpy as np

from . import looks
from .rendering import Camera, render
from .scenes import Scene, Style

_SUNNY_PALETTE = {
    "road": ((0.05, 0.14), (0.02, 0.12), (0.34, 0.5)),
    "lane mark": ((0.12, 0.16), (0.05, 0.6), (0.85, 0.98)),
    "sidewalk": ((0.07, 0.12), (0.08, 0.22), (0.6, 0.78)),
    "building": ((0.0, 0.15), (0.1, 0.6), (0.45, 0.92)),
    "window": ((0.52, 0.6), (0.3, 0.6), (0.3, 0.6)),
    "wall": ((0.03, 0.12), (0.15, 0.4), (0.55, 0.8)),
    "fence": ((0.05, 0.15), (0.1, 0.5), (0.35, 0.6)),
    "pole": ((0.55, 0.65), (0.0, 0.12), (0.35, 0.6)),
    "vegetation": ((0.22, 0.33), (0.5, 0.8), (0.3, 0.58)),
    "terrain": ((0.17, 0.28), (0.4, 0.7), (0.45, 0.65)),
    "sky top": ((0.56, 0.61), (0.15, 0.75), (0.75, 1.0)),
    "sky horizon": ((0.53, 0.6), (0.05, 0.3), (0.9, 1.0)),
    "clothes": ((0.0, 1.0), (0.2, 0.9), (0.2, 0.9)),
    "trousers": ((0.5, 0.75), (0.1, 0.7), (0.15, 0.6)),
    "car": ((0.0, 1.0), (0.1, 0.95), (0.2, 0.95)),
    "truck": ((0.0, 1.0), (0.0, 0.7), (0.5, 0.95)),
    "bus": ((0.0, 0.65), (0.3, 0.8), (0.6, 0.95)),
    "train": ((0.0, 0.65), (0.4, 0.8), (0.4, 0.8)),
    "cycle": ((0.0, 1.0), (0.3, 0.9), (0.3, 0.8)),
}
_OVERCAST_PALETTE = {
    "road": ((0.5, 0.65), (0.02, 0.09), (0.36, 0.55)),
    "lane mark": ((0.1, 0.6), (0.0, 0.06), (0.65, 0.9)),
    "sidewalk": ((0.5, 0.7), (0.02, 0.12), (0.42, 0.62)),
    "building": ((0.0, 0.18), (0.03, 0.35), (0.35, 0.85)),
    "window": ((0.45, 0.65), (0.03, 0.2), (0.15, 0.5)),
    "wall": ((0.0, 0.6), (0.03, 0.2), (0.35, 0.62)),
    "fence": ((0.0, 0.6), (0.02, 0.25), (0.2, 0.5)),
    "pole": ((0.3, 0.6), (0.0, 0.15), (0.25, 0.55)),
    "vegetation": ((0.18, 0.36), (0.25, 0.6), (0.2, 0.45)),
    "terrain": ((0.15, 0.28), (0.25, 0.5), (0.32, 0.55)),
    "sky top": ((0.5, 0.62), (0.0, 0.22), (0.82, 1.0)),
    "sky horizon": ((0.5, 0.62), (0.0, 0.1), (0.9, 1.0)),
    "clothes": ((0.0, 1.0), (0.05, 0.6), (0.08, 0.75)),
    "trousers": ((0.5, 0.75), (0.05, 0.4), (0.08, 0.45)),
    "car": ((0.0, 1.0), (0.0, 0.5), (0.08, 0.95)),
    "truck": ((0.0, 1.0), (0.0, 0.5), (0.4, 0.95)),
    "bus": ((0.0, 0.65), (0.2, 0.7), (0.45, 0.9)),
    "train": ((0.0, 0.65), (0.3, 0.7), (0.4, 0.75)),
    "cycle": ((0.0, 1.0), (0.05, 0.7), (0.1, 0.6)),
}

GTA_STYLE = Style(
    palette=_SUNNY_PALETTE,
    road_half_width=(5.5, 9.0),
    sidewalk_width=(3.0, 6.0),
    building_height=(5.0, 14.0),
    building_fraction=0.55,
    sunny=0.7,
    grass=True,
    parked=0.12,
    driving=3.5,
    persons=5.0,
    riders=1.6,
    motorcycles=1.0,
    bicycles=1.0,
    trucks=0.6,
    buses=0.5,
    trees=4.0,
    signs=2.0,
    train=0.08,
)
SYNTHIA_STYLE = replace(
    GTA_STYLE,
    road_half_width=(5.0, 9.0),
    building_height=(8.0, 20.0),
    building_fraction=0.75,
    sunny=0.5,
    grass=False,  # SYNTHIA has no terrain, truck or train
    persons=8.0,
    trucks=0.0,
    train=0.0,
)
CITYSCAPES_STYLE = Style(
    palette=_OVERCAST_PALETTE,
    road_half_width=(3.8, 5.8),
    sidewalk_width=(3.0, 8.0),
    building_height=(9.0, 22.0),
    building_fraction=0.52,
    sunny=0.25,
    grass=True,
    parked=0.32,
    driving=1.5,
    persons=7.0,
    riders=1.6,
    motorcycles=0.8,
    bicycles=1.8,
    trucks=0.4,
    buses=0.3,
    trees=5.0,
    signs=3.5,
    train=0.08,
)
DARK_ZURICH_STYLE = replace(CITYSCAPES_STYLE, sunny=0.1, persons=3.5)


def game_frame(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """An image as in GTA V: (H, W, 3) uint8 RGB, and its (H, W) train ids."""
    camera = Camera(
        height=rng.uniform(1.4, 2.4),
        focal_length=rng.uniform(0.75, 0.95),
        horizon=rng.uniform(0.42, 0.52),
        center=rng.uniform(0.35, 0.65),
        x=rng.uniform(-2, 3),
    )
    rendering = render(scene, camera, size, haze=0.25, shadow=0.45)
    return looks.game(rendering, rng), rendering.label


def simulator_frame(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """An image as in SYNTHIA, from higher above the street."""
    camera = Camera(
        height=rng.uniform(2.2, 5.0),
        focal_length=rng.uniform(0.65, 0.9),
        horizon=rng.uniform(0.2, 0.4),
        center=rng.uniform(0.3, 0.7),
        x=rng.uniform(-3, 3),
    )
    rendering = render(scene, camera, size, haze=0.1, shadow=0.5)
    return looks.simulation(rendering, rng), rendering.label


def car_photograph(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """An image as in Cityscapes; the own car's bonnet is labeled as ignored."""
    camera = Camera(
        height=rng.uniform(1.3, 1.6),
        focal_length=rng.uniform(0.9, 1.05),
        horizon=rng.uniform(0.4, 0.45),
        center=rng.uniform(0.42, 0.58),
        x=rng.uniform(0.0, 1.8),
    )
    rendering = render(scene, camera, size, haze=0.55, shadow=0.35, bonnet=True)
    return looks.photograph(rendering, rng), rendering.label


def _dashboard_camera(rng: np.random.Generator) -> Camera:
    return Camera(
        height=rng.uniform(1.3, 1.6),
        focal_length=rng.uniform(0.75, 0.85),
        horizon=rng.uniform(0.44, 0.5),
        center=rng.uniform(0.45, 0.55),
        x=rng.uniform(0.5, 1.5),
        z=rng.uniform(0, 1.0),
    )


def day_drive(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """An image as in Dark Zurich by day."""
    rendering = render(scene, _dashboard_camera(rng), size, haze=0.6, shadow=0.3)
    return looks.photograph(rendering, rng), rendering.label


def night_drive(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """An image as in Dark Zurich by night; drawn anew, the camera stands elsewhere than by day."""
    rendering = render(scene, _dashboard_camera(rng), size, haze=0.0, shadow=0.2, lamps=True)
    return looks.night(rendering, rng), rendering.label
