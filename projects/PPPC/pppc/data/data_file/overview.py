"""Pictures of a data file's data sets, for a look before training: how often classes occur, and images."""

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...visualization import IGNORED_COLOR, captioned_row, colorize_labels, with_legend
from ..catalog import class_colors, dataset_metadata, list_records, own_reader
from ..images import intensity_range, read_image
from ..inspection import high_depth_images

ROWS = 6  # images of each data set
TILE = 240  # pixels of a side


def class_shares(pixels: Mapping[str, int], classes: Sequence[str]) -> list[float]:
    """Each class's share of the labeled pixels.

    Examples:
        >>> class_shares({"road": 30, "car": 10, "": 60}, ["road", "car", "sky"])
        [0.75, 0.25, 0.0]
    """
    labeled = sum(pixels.get(name, 0) for name in classes)
    return [pixels.get(name, 0) / max(labeled, 1) for name in classes]


def draw_class_shares(
    shares: Mapping[str, Sequence[float]], classes: Sequence[str], label: str
) -> Figure:
    """Bars of each class's share of the pixels, on a scale of powers of ten.

    Args:
        shares: of each class, by data set.
        classes: names.
        label: of the axis.
    """
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(classes) * max(1, len(shares) / 2)), dpi=120)
    axes = figure.add_subplot()
    height = 0.8 / max(1, len(shares))
    for number, (name, values) in enumerate(shares.items()):
        places = np.arange(len(classes)) + number * height
        bars = axes.barh(places, [100 * value for value in values], height, label=name)
        axes.bar_label(
            bars, [f"{100 * v:.2g} %" if v else "none" for v in values], padding=2, fontsize=7
        )
    axes.set_yticks(np.arange(len(classes)) + 0.4 - height / 2, classes)
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.01)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, 400)
    axes.set_xlabel(label)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    return figure


def save_contact_sheet(path: str | PathLike, names: Sequence[str], unreadable: set[str]) -> None:
    """Some images of each data set, with their labels in colors beside them, and the classes' legend.

    Args:
        path: of the PNG.
        names: of data sets, side by side.
        unreadable: files that are left out.
    """
    columns: dict[str, np.ndarray] = {}
    for name in names:
        for kind, tiles in zip(("images", "labels"), zip(*_tiles(name, unreadable))):
            if any(tile is not None for tile in tiles):
                blank = np.full((TILE, TILE, 3), 255, np.uint8)
                column = [blank if tile is None else tile for tile in tiles]
                column += [blank] * (ROWS - len(column))
                columns[f"{name}, {kind}"] = np.concatenate(column)
    metadata = dataset_metadata(names[0])
    names, colors = [*metadata.stuff_classes, "ignored"], [*class_colors(metadata), IGNORED_COLOR]
    sheet = with_legend(captioned_row(columns), names, colors)
    Image.fromarray(sheet).save(path)


def _tiles(name: str, unreadable: set[str]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    records = [
        record
        for record in list_records(name)
        if unreadable.isdisjoint((record["file_name"], record.get("sem_seg_file_name", "")))
    ]
    deep = high_depth_images(record["file_name"] for record in records)
    intensities = intensity_range(deep, "percentiles") if deep else None
    for index in np.linspace(0, len(records) - 1, min(ROWS, len(records))).astype(int):
        record = records[index]
        image = _tile(read_image(record["file_name"], "RGB", intensities), cv2.INTER_AREA)
        label = None
        if "sem_seg_file_name" in record:
            colors = class_colors(dataset_metadata(name))
            label = colorize_labels(own_reader(name).read(record["sem_seg_file_name"]), colors)
            label = _tile(label, cv2.INTER_NEAREST)
        yield image, label


def _tile(picture: np.ndarray, interpolation: int) -> np.ndarray:
    """A picture ``(H, W, 3)`` in a white square of TILE pixels."""
    height, width = picture.shape[:2]
    scale = (TILE - 4) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=interpolation)
    tile = np.full((TILE, TILE, 3), 255, np.uint8)
    top, left = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    return tile
