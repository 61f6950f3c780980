"""From a scene of the demo data to an image and its labels."""

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


def _paint(canvas: np.ndarray, faces: list[Face], colors: list[tuple], camera: Camera) -> None:
    """Fill the faces' polygons in order."""
    size = canvas.shape[1], canvas.shape[0]
    points = [face.points.reshape(-1, 3) for face in faces]
    pixels = camera.project(np.concatenate(points), size)
    start = 0
    for face, color in zip(faces, colors, strict=True):
        num_polygons, num_points = face.points.shape[:2]
        end = start + num_polygons * num_points
        for polygon in pixels[start:end].reshape(num_polygons, num_points, 2):
            cv2.fillConvexPoly(canvas, polygon, color, cv2.LINE_8, _SUBPIXEL_BITS)
        start = end


def _in_sight(faces: list[Face]) -> list[Face]:
    """Faces that reach beyond the near plane; upright ones facing the camera vanish before it."""
    return [f for f in faces if len(f.points) and f.points[..., 2].max() > 1.5 * NEAR]


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

    ground = _in_sight(scene.ground)
    _paint(canvas, ground, [_color_and_label(face, scene, 0.0) for face in ground], camera)
    below = np.maximum(rows + 0.5 - camera.horizon * height, 1e-3)
    depth = camera.height * camera.focal_length * width / below
    depth[rows < camera.horizon * height] = np.inf
    _cast_shadows(canvas, scene, camera, shadow)
    _haze_ground(canvas, scene, depth, haze)

    standing = _in_sight(scene.standing)
    hidden = [haze * min(1.0, float(f.points[0, 0, 2]) / 100) for f in standing]
    colors = [_color_and_label(f, scene, share) for f, share in zip(standing, hidden, strict=True)]
    _paint(canvas, standing, colors, camera)

    if bonnet:
        center = (int(width * 0.5), int(height * 1.19))
        axes = (int(width * 0.6), int(height * 0.27))
        cv2.ellipse(canvas, center, axes, 0, 180, 360, (30, 32, 35, IGNORE_LABEL), -1)

    return canvas[..., :3].astype(np.float32) / 255, canvas[..., 3].copy()


def _color_and_label(face: Face, scene: Scene, hidden: float) -> tuple:
    color = [
        255 * ((1 - hidden) * own + hidden * air)
        for own, air in zip(face.color, scene.sky_horizon, strict=True)
    ]
    return (*color, face.train_id)


def _cast_shadows(canvas: np.ndarray, scene: Scene, camera: Camera, shadow: float) -> None:
    mask = np.zeros(canvas.shape[:2], np.uint8)
    shadows = _in_sight(scene.shadows)
    if shadows:
        _paint(mask, shadows, [(255,)] * len(shadows), camera)
        factor = 255 - np.round(shadow * mask).astype(np.uint8)
        canvas[..., :3] = cv2.multiply(canvas[..., :3], cv2.merge([factor] * 3), scale=1 / 255)


def _haze_ground(canvas: np.ndarray, scene: Scene, depth: np.ndarray, haze: float) -> None:
    ground = np.isfinite(depth)
    hidden = (haze * np.minimum(depth[ground] / 100, 1))[:, None, None]
    air = 255 * np.array(scene.sky_horizon)
    canvas[ground, :, :3] = (1 - hidden) * canvas[ground, :, :3] + hidden * air
