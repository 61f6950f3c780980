"""The looks of the demo data sets: what turns a rendering into a game's frame or a photograph.

Each takes a Rendering and a random generator, and returns an (H, W, 3) uint8 RGB image. Chance
varies the light within a look too, as it varies within a real data set.
"""

import cv2
import numpy as np

from .rendering import Rendering
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


def _textured(rendering: Rendering, rng, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    label = rendering.label
    relief = fine[label] * rng.standard_normal(label.shape, dtype=np.float32)
    relief += coarse[label] * _noise(rng, label.shape, 6)
    return rendering.image * np.maximum(1 + relief, 0)[..., None]


def _saturate(image: np.ndarray, saturation: float) -> np.ndarray:
    """Blend with gray: 0 is gray, 1 unchanged, more is more colorful."""
    gray = image.mean(axis=2, keepdims=True)
    return np.maximum(gray + saturation * (image - gray), 0)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(255 * image), 0, 255).astype(np.uint8)


def _as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """The image with the artifacts of a JPEG of that quality."""
    ok, encoded = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    assert ok
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def _vignette(shape: tuple[int, int], strength: float) -> np.ndarray:
    height, width = shape
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    return (1 - strength * (rows**2 + columns**2) / 2)[..., None]


def game(rendering: Rendering, rng: np.random.Generator) -> np.ndarray:
    """A game's frame: clean, saturated, sharp, under a warm sun."""
    image = _textured(rendering, rng, _GAME_FINE, _GAME_COARSE)
    image = _saturate(image, rng.uniform(0.8, 1.35))
    warmth = np.array([1.04, 1.0, 0.94], np.float32)
    return _to_bytes(image ** rng.uniform(0.8, 1.25) * rng.uniform(0.65, 1.1) * warmth)


def simulation(rendering: Rendering, rng: np.random.Generator) -> np.ndarray:
    """A simulator's frame: flat and pale, of any daylight."""
    image = _textured(rendering, rng, _GAME_FINE * 0.5, _GAME_COARSE)
    image = _saturate(image, rng.uniform(0.7, 1.1))
    light = rng.uniform(0.6, 1.05) * np.array([1.0, 1.0, rng.uniform(0.95, 1.1)], np.float32)
    return _to_bytes((0.1 + 0.9 * image) * light)


def photograph(rendering: Rendering, rng: np.random.Generator) -> np.ndarray:
    """A car camera's picture: uneven light, greenish, soft, with noise and JPEG artifacts."""
    image = _textured(rendering, rng, _STREET_FINE, _STREET_COARSE)
    shape = rendering.label.shape
    light = rng.uniform(0.7, 1.05) * (1 + 0.08 * _noise(rng, shape, max(shape) // 3)[..., None])
    cast = np.array([0.93, 1.0, 0.93], np.float32) * rng.uniform(0.96, 1.04, 3).astype(np.float32)
    image = _saturate(image, rng.uniform(0.6, 0.9)) * light * cast
    image = np.maximum(image, 0) ** rng.uniform(0.8, 1.15) * _vignette(shape, rng.uniform(0.1, 0.4))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.8))
    image += rng.uniform(0.008, 0.02) * rng.standard_normal(image.shape, dtype=np.float32)
    return _as_jpeg(_to_bytes(image), int(rng.integers(55, 90)))


def night(rendering: Rendering, rng: np.random.Generator) -> np.ndarray:
    """The same camera's picture at night: lamps, halos, an orange cast, dark elsewhere, noise."""
    image = _textured(rendering, rng, _STREET_FINE, _STREET_COARSE)
    height, width = rendering.label.shape
    lamps = rendering.light
    # Lamps light up their surroundings; the own headlights light the road ahead.
    coarse = cv2.resize(lamps, (width // 4, height // 4))
    surroundings = cv2.resize(cv2.GaussianBlur(coarse, (0, 0), width / 50), (width, height))
    rows = (np.arange(height, dtype=np.float32)[:, None] / height - 0.8) / 0.22
    columns = (np.arange(width, dtype=np.float32)[None] / width - 0.5) / 0.3
    headlights = np.exp(-(rows**2 + columns**2))[..., None] * np.array([1.0, 0.9, 0.75])
    ambient = rng.uniform(0.15, 0.35) * np.array([1.05, 0.85, 0.7])
    light = ambient + rng.uniform(0.15, 0.4) * headlights + rng.uniform(2.0, 4.0) * surroundings
    image = image * light
    image[rendering.label == TRAIN_ID["sky"]] *= 0.3
    image = _saturate(image, 0.75) + lamps + 0.8 * cv2.GaussianBlur(lamps, (0, 0), width / 120)
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.6, 1.1))
    image += rng.uniform(0.015, 0.035) * rng.standard_normal(image.shape, dtype=np.float32)
    return _as_jpeg(_to_bytes(image), int(rng.integers(50, 85)))
