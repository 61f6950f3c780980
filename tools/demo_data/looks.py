"""The cameras of the demo data sets, and what turns a rendering into a game's frame or a photograph.

Chance varies camera and light within a look too, as they vary within a real data set.
"""

import cv2
import numpy as np

from .rendering import Camera, render
from .scenes import Scene
from .shapes import TRAIN_ID


def _amplitudes(default: float, **by_class: float) -> np.ndarray:
    """Amplitude of a texture by label: (256,)."""
    table = np.full(256, default, np.float32)
    for name, amplitude in by_class.items():
        table[TRAIN_ID[name]] = amplitude
    return table


# Standard deviations of relative brightness, from pixel to pixel and from patch to patch.
_GAME_FINE = _amplitudes(0.015, vegetation=0.16, terrain=0.07, road=0.02)
_GAME_COARSE = _amplitudes(0.02, vegetation=0.10, sky=0.0)
_STREET_FINE = _amplitudes(0.03, vegetation=0.20, terrain=0.12, road=0.05, sidewalk=0.06, sky=0.0)
_STREET_COARSE = _amplitudes(0.05, vegetation=0.15, terrain=0.10, car=0.03, sky=0.02)


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise of unit variance per cell: (H, W) float32."""
    height, width = shape
    cells = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def _textured(image, label, rng, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    relief = fine[label] * rng.standard_normal(label.shape, dtype=np.float32)
    relief += coarse[label] * _noise(rng, label.shape, 6)
    return image * np.maximum(1 + relief, 0)[..., None]


def _saturate(image: np.ndarray, saturation: float) -> np.ndarray:
    """Blend with gray: 0 is gray, 1 unchanged, more is more colorful."""
    gray = image.mean(axis=2, keepdims=True)
    return np.maximum(gray + saturation * (image - gray), 0)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(255 * image), 0, 255).astype(np.uint8)


def _vignette(shape: tuple[int, int], strength: float) -> np.ndarray:
    height, width = shape
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    return (1 - strength * (rows**2 + columns**2) / 2)[..., None]


def game_frame(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """A game's frame, clean, saturated, sharp, under a warm sun: (H, W, 3) uint8 RGB, train ids (H, W)."""
    camera = Camera(
        height=rng.uniform(1.4, 2.4),
        focal_length=rng.uniform(0.75, 0.95),
        horizon=rng.uniform(0.42, 0.52),
        center=rng.uniform(0.35, 0.65),
        x=rng.uniform(-2, 3),
    )
    image, label = render(scene, camera, size, haze=0.25, shadow=0.45)
    image = _textured(image, label, rng, _GAME_FINE, _GAME_COARSE)
    image = _saturate(image, rng.uniform(0.8, 1.35))
    warmth = np.array([1.04, 1.0, 0.94], np.float32)
    image = image ** rng.uniform(0.8, 1.25) * rng.uniform(0.65, 1.1) * warmth
    return _to_bytes(image), label


def car_photograph(scene: Scene, size: tuple[int, int], rng: np.random.Generator, bonnet=True):
    """A car camera's picture: uneven light, greenish, soft, with noise and JPEG artifacts.

    The own car's bonnet is labeled as ignored.
    """
    camera = Camera(
        height=rng.uniform(1.3, 1.6),
        focal_length=rng.uniform(0.9, 1.05),
        horizon=rng.uniform(0.4, 0.45),
        center=rng.uniform(0.42, 0.58),
        x=rng.uniform(0.0, 1.8),
    )
    image, label = render(scene, camera, size, haze=0.55, shadow=0.35, bonnet=bonnet)
    shape = label.shape
    image = _textured(image, label, rng, _STREET_FINE, _STREET_COARSE)
    light = rng.uniform(0.7, 1.05) * (1 + 0.08 * _noise(rng, shape, max(shape) // 3)[..., None])
    cast = np.array([0.93, 1.0, 0.93], np.float32) * rng.uniform(0.96, 1.04, 3).astype(np.float32)
    image = _saturate(image, rng.uniform(0.6, 0.9)) * light * cast
    image = np.maximum(image, 0) ** rng.uniform(0.8, 1.15) * _vignette(shape, rng.uniform(0.1, 0.4))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.8))
    image += rng.uniform(0.008, 0.02) * rng.standard_normal(image.shape, dtype=np.float32)
    quality = cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 90))
    encoded = cv2.imencode(".jpg", _to_bytes(image), quality)[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR), label


def day_drive(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """The same without the own car."""
    return car_photograph(scene, size, rng, bonnet=False)


def night_drive(scene: Scene, size: tuple[int, int], rng: np.random.Generator):
    """The same by night: dark, and bluish."""
    image, label = day_drive(scene, size, rng)
    return (image * np.array([0.2, 0.22, 0.3])).astype(np.uint8), label
