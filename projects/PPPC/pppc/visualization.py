"""Images, labels and uncertainty maps as pictures.

All pictures are ``(H, W, 3)`` uint8 RGB.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils.visualizer import Visualizer
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

IGNORED_COLOR = (0, 0, 0)
CAPTION_HEIGHT = 16  # pixels
LEGEND_ROW = 18  # pixels


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


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    colors: Sequence[Sequence[int]],
) -> np.ndarray:
    """Train IDs ``(H, W)`` over their image, with the classes' names, by Detectron2's visualizer."""
    metadata = Metadata(stuff_classes=list(names), stuff_colors=colors)
    return Visualizer(image, metadata).draw_sem_seg(labels, alpha=0.5).get_image()


def with_legend(
    picture: np.ndarray, names: Sequence[str], colors: Sequence[Sequence[int]]
) -> np.ndarray:
    """A picture, and to its right all classes with their colors.

    Pictures of one size get one size.
    """
    font = ImageFont.truetype(findfont("DejaVu Sans"), 12)
    rows = max(8, picture.shape[0] // LEGEND_ROW)
    column = 30 + round(max(font.getlength(name) for name in names))
    height = max(picture.shape[0], LEGEND_ROW * min(rows, len(names)))
    width = picture.shape[1] + column * -(-len(names) // rows)
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(canvas)
    for train_id, (name, color) in enumerate(zip(names, colors)):
        left = picture.shape[1] + column * (train_id // rows)
        top = LEGEND_ROW * (train_id % rows)
        draw.rectangle((left + 5, top + 3, left + 17, top + 15), tuple(color), "gray")
        draw.text((left + 22, top + 2), name, "black", font)
    return np.asarray(canvas)
