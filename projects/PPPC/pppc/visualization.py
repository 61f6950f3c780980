"""Images, labels and uncertainty maps as pictures.

All pictures are ``(H, W, 3)`` uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

__all__ = ["captioned_row", "colorize_labels", "colorize_uncertainty"]

IGNORED_COLOR = (0, 0, 0)
CAPTION_HEIGHT = 16  # pixels


def colorize_labels(label: np.ndarray, colors: Sequence[Sequence[int]]) -> np.ndarray:
    """Train IDs ``(H, W)`` in their classes' colors; other values black."""
    table = np.full((256, 3), IGNORED_COLOR, dtype=np.uint8)
    table[: len(colors)] = colors
    return table[label.astype(np.uint8)]


def colorize_uncertainty(uncertainty: np.ndarray) -> np.ndarray:
    """A map ``(H, W)``, dark (its lowest 2 %) to bright (its highest 2 %)."""
    low, high = np.percentile(uncertainty, (2, 98))
    scaled = np.clip((uncertainty - low) / max(high - low, 1e-12), 0, 1)
    return cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]


def captioned_row(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures of one height, side by side, each under its caption."""
    columns = []
    for caption, picture in pictures.items():
        strip = np.full((CAPTION_HEIGHT, picture.shape[1], 3), 255, dtype=np.uint8)
        cv2.putText(
            strip, caption, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
        )
        columns.append(np.concatenate([strip, picture]))
    return np.concatenate(columns, axis=1)
