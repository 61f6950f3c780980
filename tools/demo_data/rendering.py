"""From a scene of the demo data to an image and its labels."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from pppc.data.train_ids import IGNORE_LABEL

from .scenes import NEAR, Scene
from .shapes import TRAIN_ID, Face

_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Camera:
    """A camera that looks along the street.

    Attributes:
        height: meters above the ground.
        focal_length: in image widths.
        horizon: row of the horizon, in image heights from the top.
        center: column of the vanishing point, in image widths from the left.
        x: meters to the right of the street's origin.
    """

    height: float
    focal_length: float
    horizon: float
    center: float
    x: float

    def project(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """World points (P, 3) to fixed-point positions (P, 2) in an image of (width, height)."""
        width, height = size
        depth = np.maximum(points[:, 2], NEAR)
        scale = self.focal_length * width / depth
        columns = self.center * width + scale * (points[:, 0] - self.x)
        rows = self.horizon * height - scale * (points[:, 1] - self.height)
        pixels = np.stack([columns, rows], axis=1) * (1 << _SUBPIXEL_BITS)
        return np.clip(np.round(pixels), -(2**24), 2**24).astype(np.int32)


def _paint(
    canvas: np.ndarray, faces: list[Face], camera: Camera, color: Callable[[Face], tuple]
) -> None:
    """Fill the polygons of faces that reach beyond the near plane, in order."""
    # Upright ones facing the camera vanish before it.
    faces = [f for f in faces if len(f.points) and f.points[..., 2].max() > 1.5 * NEAR]
    points = np.concatenate([face.points.reshape(-1, 3) for face in faces] or [np.empty((0, 3))])
    pixels = camera.project(points, (canvas.shape[1], canvas.shape[0]))
    ends = np.cumsum([face.points.size // 3 for face in faces])
    for face, of_face in zip(faces, np.split(pixels, ends)):
        for polygon in of_face.reshape(*face.points.shape[:2], 2):
            cv2.fillConvexPoly(canvas, polygon, color(face), cv2.LINE_8, _SUBPIXEL_BITS)


def render(
    scene: Scene,
    camera: Camera,
    size: tuple[int, int],
    haze: float,
    shadow: float,
    bonnet: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene: the image (H, W, 3) float32, RGB, 0 to 1, and its train ids (H, W) uint8.

    Args:
        scene: the street.
        camera: where from.
        size: (width, height) in pixels.
        haze: share of a thing's color that the horizon's replaces for every 100 m.
        shadow: share of the light that shadows on the ground take away.
        bonnet: whether the bottom rows show the own car, which is labeled as ignored.
    """
    width, height = size
    # Color and label share one canvas of four channels, so that they can't come apart.
    canvas = np.empty((height, width, 4), np.uint8)
    rows = np.arange(height, dtype=np.float32)
    mix = np.clip(rows / (camera.horizon * height), 0, 1)[:, None]
    sky = (1 - mix) * np.array(scene.sky_top) + mix * np.array(scene.sky_horizon)
    canvas[..., :3] = (255 * sky)[:, None]
    canvas[..., 3] = TRAIN_ID["sky"]

    def color(face: Face, hidden: float = 0.0) -> tuple:
        mixed = (
            255 * ((1 - hidden) * own + hidden * air)
            for own, air in zip(face.color, scene.sky_horizon)
        )
        return (*mixed, face.train_id)

    _paint(canvas, scene.ground, camera, color)
    below = np.maximum(rows + 0.5 - camera.horizon * height, 1e-3)
    depth = camera.height * camera.focal_length * width / below
    depth[rows < camera.horizon * height] = np.inf
    _cast_shadows(canvas, scene, camera, shadow)
    _haze_ground(canvas, scene, depth, haze)

    def color_in_haze(face: Face) -> tuple:
        return color(face, haze * min(1.0, float(face.points[0, 0, 2]) / 100))

    _paint(canvas, scene.standing, camera, color_in_haze)

    if bonnet:
        center = (int(width * 0.5), int(height * 1.19))
        axes = (int(width * 0.6), int(height * 0.27))
        cv2.ellipse(canvas, center, axes, 0, 180, 360, (30, 32, 35, IGNORE_LABEL), -1)

    return canvas[..., :3].astype(np.float32) / 255, canvas[..., 3].copy()


def _cast_shadows(canvas: np.ndarray, scene: Scene, camera: Camera, shadow: float) -> None:
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _paint(mask, scene.shadows, camera, lambda _: (255,))
    factor = 255 - np.round(shadow * mask).astype(np.uint8)
    canvas[..., :3] = cv2.multiply(canvas[..., :3], cv2.merge([factor] * 3), scale=1 / 255)


def _haze_ground(canvas: np.ndarray, scene: Scene, depth: np.ndarray, haze: float) -> None:
    ground = np.isfinite(depth)
    hidden = (haze * np.minimum(depth[ground] / 100, 1))[:, None, None]
    air = 255 * np.array(scene.sky_horizon)
    canvas[ground, :, :3] = (1 - hidden) * canvas[ground, :, :3] + hidden * air
