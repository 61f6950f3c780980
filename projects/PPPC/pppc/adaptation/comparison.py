"""Models of the same classes side by side: what they predict without labels, and where they differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from ..data.labels import pixel_histogram
from ..files import write_atomically
from ..prediction import Predictor
from ..visualization import captioned_row, colorize_labels, colorize_uncertainty, with_legend

PICTURE_HEIGHT = 320  # pixels


@dataclass(frozen=True)
class Comparison:
    """What models predict for the same images.

    Attributes:
        shares: of all pixels that each class is predicted for, by the model's name.
        differences: share of the pixels at which any two models predict different classes, by the image.
    """

    shares: dict[str, list[float]]
    differences: dict[str, float]

    def most_different(self, number: int) -> list[str]:
        """Images, those first in which models differ most."""
        return sorted(self.differences, key=lambda name: -self.differences[name])[:number]


def compare(models: Mapping[str, Predictor], images: Sequence[str]) -> Comparison:
    """Predict images by all models, at the size at which the networks see them."""
    counts = {name: np.zeros(256, np.int64) for name in models}
    differences = {}
    for image in tqdm(images, desc="comparing", unit="image", disable=None):
        labels = [model.predict(model.read_reduced(image)).labels for model in models.values()]
        for name, label in zip(counts, labels):
            counts[name] += pixel_histogram(label)
        differences[image] = float(np.mean(np.any(np.array(labels) != labels[0], axis=0)))
    shares = {
        name: (count[: len(models[name].names)] / max(1, count.sum())).tolist()
        for name, count in counts.items()
    }
    return Comparison(shares, differences)


def draw(models: Mapping[str, Predictor], images: Sequence[str], folder: Path) -> list[Path]:
    """A picture of each image: the image, what each model predicts, the last one's uncertainty, a legend."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(images, 1):
        row = {}
        for name, model in models.items():
            result = model.predict(model.read_reduced(image))
            row |= {"image": result.image, name: colorize_labels(result.labels, model.colors)}
        if result.uncertainty is not None:
            row["uncertainty"] = colorize_uncertainty(result.uncertainty)
        row = {caption: _of_height(picture) for caption, picture in row.items()}
        picture = with_legend(captioned_row(row), model.names, model.colors)
        paths.append(folder / f"{number}_{Path(image).stem}.png")
        picture = np.ascontiguousarray(picture[:, :, ::-1])
        write_atomically(paths[-1], cv2.imencode(".png", picture)[1].tobytes())
    return paths


def _of_height(picture: np.ndarray) -> np.ndarray:
    width = math.ceil(picture.shape[1] * PICTURE_HEIGHT / picture.shape[0])
    return cv2.resize(picture, (width, PICTURE_HEIGHT), interpolation=cv2.INTER_AREA)


def table(columns: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> str:
    """A row for each class and for "mean", where a column has it; in percent.

    Args:
        columns: figures by class and "mean", by the column's name.
        classes: names.

    Examples:
        >>> print(table({"a": {"road": 91.25, "mean": 91.25}}, ["road", "sky"]))
        | class   |    a |
        |:--------|-----:|
        | road    | 91.2 |
        | sky     |  -   |
        | mean    | 91.2 |
    """
    rows = [[name, *(figures.get(name) for figures in columns.values())] for name in classes]
    if any("mean" in figures for figures in columns.values()):
        rows.append(["mean", *(figures.get("mean") for figures in columns.values())])
    return tabulate(
        rows, headers=["class", *columns], floatfmt=".1f", missingval="-", tablefmt="pipe"
    )
