"""What models predict for the same images: figures over them, and pictures of each.

Shapes: C classes, M models.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..data.catalog import label_reader, list_records
from ..data.labels import pixel_histogram
from ..errors import InputError, printable
from ..evaluation.class_map import resized
from ..evaluation.mean_iou import confusion_matrix, intersection_over_union
from ..prediction import Prediction, Predictor
from ..visualization import IGNORED_COLOR, colorize_labels, colorize_uncertainty

logger = logging.getLogger(__name__)

SIDE = 480  # pixels of a picture's longer side
SAMPLE = 4000  # pixels of an image whose confidence is compared with its label
DIMMED = 0.35  # of a photograph, where two models agree


@dataclass(frozen=True)
class Picture:
    """A picture as the page holds it.

    Attributes:
        caption: what it is.
        mime: "image/jpeg" or "image/png".
        content: of the file.
        size: (width, height), pixels.
    """

    caption: str
    mime: str
    content: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class Look:
    """What models say of one image.

    Attributes:
        file: its path.
        ious: the mean IoU of the classes that its label shows, in percent, by model; {} without a label.
        difference: share of the pixels in which two models differ; None of one model.
        pictures: of the image, its label, each model's classes, where they differ, and the uncertainty.
    """

    file: str
    ious: dict[str, float]
    difference: float | None
    pictures: list[Picture]

    @property
    def name(self) -> str:
        return printable(Path(self.file).name)


@dataclass
class Looks:
    """What models say of all images that were looked at.

    Attributes:
        models: their names.
        names, colors: of the classes.
        labeled: whether the images have labels.
        data_sets: that the images are of.
        total: images that these have.
        images: in the order of the data sets.
        shares: of all pixels that each class is predicted for, ``(C,)`` by model; and "labels".
        source_shares: of the pixels of the source's labels, ``(C,)``; None: not known.
        confusion: ``(C, C)`` by model, rows are labels.
        doubts: of sampled labeled pixels an uncertainty ``(P,)`` by model and signal.
        wrong: whether they are predicted wrongly, ``(P,)`` bool by model.
    """

    models: list[str]
    names: list[str]
    colors: list[list[int]]
    labeled: bool
    data_sets: list[str]
    total: int = 0
    images: list[Look] = field(default_factory=list)
    shares: dict[str, np.ndarray] = field(default_factory=dict)
    source_shares: np.ndarray | None = None
    confusion: dict[str, np.ndarray] = field(default_factory=dict)
    doubts: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    wrong: dict[str, np.ndarray] = field(default_factory=dict)


def look(models: Mapping[str, Predictor], number: int) -> Looks:
    """Predict images of the test sets or, where there are none, of the target, evenly spread over them.

    Args:
        models: of the same classes, by name; the first one's configuration names the data sets, the last
            one's uncertainty is drawn.
        number: of images.

    Raises:
        InputError: no image is there, or none can be read.
    """
    first = next(iter(models.values()))
    cfg = first.cfg
    labeled = bool(cfg.DATASETS.TEST)
    data_sets = list(cfg.DATASETS.TEST or cfg.DATASETS.TARGET)
    readers = {name: label_reader(cfg, name) if labeled else None for name in data_sets}
    records = [(record, readers[name]) for name in data_sets for record in list_records(name)]
    if not records:
        raise InputError(
            "the configuration names no test set and no target: there is no image to look at"
        )
    found = Looks(list(models), first.names, first.colors, labeled, data_sets, len(records))
    counted = list(models.values())[-1].model.class_shares.cpu().double()
    if counted.any():
        found.source_shares = (counted / counted.sum()).numpy()
    counts = {name: np.zeros(256, np.int64) for name in (*models, *["labels"] * labeled)}
    found.confusion = (
        {name: np.zeros((len(found.names),) * 2, np.int64) for name in models} if labeled else {}
    )
    samples: dict[str, list[tuple]] = {name: [] for name in models}
    for index in np.linspace(0, len(records) - 1, min(number, len(records))).astype(int):
        record, reader = records[index]
        try:
            results = {
                name: model.predict(model.read_reduced(record["file_name"]))
                for name, model in models.items()
            }
            truth = None
            if reader is not None:
                size = next(iter(results.values())).labels.shape
                truth = resized(reader.label_of(record), size)
        except InputError as error:
            logger.warning("The report leaves out an image: %s", error)
            continue
        ious = {}
        for name, result in results.items():
            counts[name] += pixel_histogram(result.labels)
            if truth is not None:
                classes = resized(result.labels, truth.shape)
                matrix = confusion_matrix(classes, truth, len(found.names))
                found.confusion[name] += matrix
                shown = matrix.sum(1) > 0
                if shown.any():
                    ious[name] = 100 * float(intersection_over_union(matrix)[shown].mean())
                samples[name].append(_sample(result, truth, len(found.names)))
        if truth is not None:
            counts["labels"] += pixel_histogram(truth)
        found.images.append(Look(record["file_name"], ious, *_drawn(results, truth, found.colors)))
    if not found.images:
        raise InputError(f"none of the images of {', '.join(data_sets)} can be read")
    for name, count in counts.items():
        of_classes = count[: len(found.names)]
        found.shares[name] = of_classes / max(1, of_classes.sum())
    if labeled:
        for name, parts in samples.items():
            wrong, *doubts = (np.concatenate(values) for values in zip(*parts))
            found.wrong[name] = wrong
            found.doubts[name] = dict(zip(("confidence", "uncertainty"), doubts))
    return found


def _sample(result: Prediction, truth: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    """Of some labeled pixels whether they are wrong, 1 - confidence, and any uncertainty."""
    size = result.labels.shape
    labeled = np.flatnonzero(resized(truth, size) < num_classes)
    chosen = labeled[:: max(1, len(labeled) // SAMPLE)]
    wrong = result.labels.flat[chosen] != resized(truth, size).flat[chosen]
    doubts = [1 - result.confidence.flat[chosen]]
    if result.uncertainty is not None:
        doubts.append(result.uncertainty.flat[chosen])
    return (wrong, *doubts)


def _drawn(
    results: Mapping[str, Prediction], truth: np.ndarray | None, colors: Sequence[Sequence[int]]
) -> tuple[float | None, list[Picture]]:
    """The share of pixels in which the first and the last model differ, and the pictures."""
    last = list(results.values())[-1]
    size = last.labels.shape
    pictures = [_photograph("image", last.image)]
    if truth is not None:
        pictures.append(_classes("labels", truth, colors))
    pictures += [_classes(name, result.labels, colors) for name, result in results.items()]
    difference = None
    if len(results) > 1:
        differ = resized(next(iter(results.values())).labels, size) != last.labels
        difference = float(differ.mean())
        dim = (
            255 - DIMMED * (255 - cv2.cvtColor(last.image, cv2.COLOR_RGB2GRAY)[..., None])
        ).astype(np.uint8)
        where = np.where(differ[..., None], colorize_labels(last.labels, colors), dim)
        pictures.append(_photograph("where they differ", where))
    if last.uncertainty is not None:
        pictures.append(_photograph("unsure where bright", colorize_uncertainty(last.uncertainty)))
    return difference, pictures


def _size(pixels: np.ndarray) -> tuple[int, int]:
    height, width = pixels.shape[:2]
    scale = min(1, SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _photograph(caption: str, pixels: np.ndarray) -> Picture:
    size, file = _size(pixels), BytesIO()
    Image.fromarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)).save(
        file, "JPEG", quality=82
    )
    return Picture(caption, "image/jpeg", file.getvalue(), size)


def _classes(caption: str, labels: np.ndarray, colors: Sequence[Sequence[int]]) -> Picture:
    size, file = _size(labels), BytesIO()
    picture = Image.fromarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
    table = np.full((256, 3), IGNORED_COLOR, np.uint8)
    table[: len(colors)] = colors
    picture.putpalette(table.tobytes())
    picture.save(file, "PNG", optimize=True)
    return Picture(caption, "image/png", file.getvalue(), size)
