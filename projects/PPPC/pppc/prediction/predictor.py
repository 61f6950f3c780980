"""From a checkpoint to predictions: the one way of all tools, and of scripts of one's own.

Shapes: an image of H x W pixels, C classes.
"""

import math
import os
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from PIL import Image

from ..checkpoints.classes import description
from ..checkpoints.path_handlers import local_path
from ..checkpoints.trained_model import trained_model
from ..config.files import flat_settings, read_settings, settings_to_config
from ..data.catalog import with_intensities
from ..data.images import read_image
from ..data.mapper import TestMapper
from ..errors import InputError
from ..evaluation.class_map import class_map, resized
from ..files import user_path
from ..visualization import overlay, with_legend

Key = TypeVar("Key")
# What an uncertainty is, by what tells that a model gives it.
UNCERTAINTIES = {
    "probability of error": "gives_error_probability",
    "entropy of prototypes": "gives_embedding",
}


@dataclass(frozen=True)
class Prediction:
    """What a model sees in an image.

    Attributes:
        image: ``(H, W, 3)`` uint8, RGB.
        labels: ``(H, W)`` uint8, the class of each pixel, an index in ``names``.
        confidence: ``(H, W)`` float32, the probability of that class.
        uncertainty: ``(H, W)`` float32, see :attr:`Predictor.uncertainty_is`; None where there is none.
        names: of the classes.
        colors: of the classes, RGB, 0 to 255.
    """

    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    uncertainty: np.ndarray | None
    names: list[str]
    colors: list[list[int]]

    def draw(self) -> Image.Image:
        """The classes over the image, by Detectron2's visualizer, and beside it a legend."""
        picture = overlay(self.image, self.labels, self.names, self.colors)
        return Image.fromarray(with_legend(picture, self.names, self.colors))


@dataclass(frozen=True)
class Part:
    """What is predicted of a part of an image, h x w pixels, see :class:`Prediction`.

    Attributes:
        place: rows and columns of the part in the image.
        labels, confidence, uncertainty: ``(h, w)``.
        seconds: that its prediction took, its share of a batch's.
    """

    place: tuple[slice, slice]
    labels: np.ndarray
    confidence: np.ndarray
    uncertainty: np.ndarray | None
    seconds: float


class Predictor:
    """A trained model and how its images are read and resized.

    Args:
        cfg: the configuration, with MODEL.WEIGHTS.
        trained_with: what was recorded of the training: keys and values, or of a model folder
            (:mod:`pppc.model_folder`) its config.json.

    Raises:
        InputError: the weights do not fit the configuration
            (:func:`pppc.checkpoints.trained_model.trained_model`).
    """

    def __init__(self, cfg: CfgNode, trained_with: Mapping[str, object] | None = None):
        self.trained_with = trained_with or {}
        self.model = trained_model(cfg)
        if getattr(self.model, "evaluate_teacher", None) is False:
            self.model.teacher = None  # it only takes memory
        self.cfg = with_intensities(cfg, self.model)
        self.mapper = TestMapper(cfg)
        self.names: list[str] = self.model.class_names
        self.colors: list[list[int]] = self.model.class_colors

    def __call__(self, image: str | os.PathLike | np.ndarray) -> dict[str, torch.Tensor]:
        """A prediction in Detectron2's format.

        Args:
            image: a file's name, or ``(H, W, 3)`` uint8, RGB.

        Returns:
            see :meth:`pppc.modeling.meta_arch.PPPCSegmentor.inference`.
        """
        return self._outputs([self.read(image)])[0]

    def predict(self, image: str | os.PathLike | np.ndarray, **how: object) -> Prediction:
        """What the model sees in an image.

        Args:
            image: a file, or ``(H, W, 3)`` uint8, RGB.
            how: window, scales, mirror, batch: see :meth:`parts`.

        Raises:
            InputError: the file can't be read, or the image is of another kind.
        """
        pixels = self.read(image)
        size = pixels.shape[:2]
        labels, confidence = np.empty(size, np.uint8), np.empty(size, np.float32)
        uncertainty = np.empty(size, np.float32) if self.has_uncertainty else None
        name = "the image" if isinstance(image, np.ndarray) else os.fspath(image)
        for _, part in self.parts([(name, pixels)], **how):
            labels[part.place], confidence[part.place] = part.labels, part.confidence
            if uncertainty is not None:
                uncertainty[part.place] = part.uncertainty
        return Prediction(pixels, labels, confidence, uncertainty, self.names, self.colors)

    @property
    def has_uncertainty(self) -> bool:
        """Whether predictions have an uncertainty: the model is calibrated, or has prototypes."""
        return bool(self.uncertainty_is)

    @property
    def uncertainty_is(self) -> str:
        """What the uncertainty of predictions is.

        "probability of error", in [0, 1], of a calibrated model (TEST.CALIBRATION); "entropy of prototypes",
        how far a pixel's Gaussian lies between the prototypes, in nats
        (:meth:`pppc.modeling.meta_arch.PPPCSegmentor.uncertainty`); "" where there is none.
        """
        return next(
            (name for name, key in UNCERTAINTIES.items() if getattr(self.model, key, False)), ""
        )

    @property
    def highest_uncertainty(self) -> float:
        """The highest that an uncertainty can be."""
        probability = getattr(self.model, "gives_error_probability", False)
        return 1.0 if probability else math.log(len(self.names))

    def parts(
        self,
        images: Iterable[tuple[Key, np.ndarray]],
        *,
        window: int | None = None,
        scales: Sequence[float] = (1,),
        mirror: bool = False,
        batch: int = 1,
    ) -> Iterator[tuple[Key, Part]]:
        """The prediction of images, part by part, so that class scores take the memory of some windows.

        An image with a side of more than ``window`` pixels goes through the network in windows of that
        size, each resized like an image of its own. They overlap by a quarter or more, and of each that
        part is taken which lies nearer to its center than to its neighbors'.

        Args:
            images: anything that tells images apart, by whose text an error names the image, and
                ``(H, W, 3)`` uint8, RGB.
            window: pixels; None: TEST.WINDOW.
            scales: average the probabilities and uncertainties of each window at these sizes, 1 being
                the one that the configuration asks for.
            mirror: and of their mirror images.
            batch: windows, of one image or several, that are predicted at a time. Those of one size go
                through the network together.

        Yields:
            parts that cover an image, each pixel once, in the order of the images.

        Raises:
            InputError: the network's scores tell no class.
        """
        window = window or self.cfg.TEST.WINDOW
        views = [(scale, flip) for scale in scales for flip in (False, True)[: 1 + mirror]]
        windows = (
            (key, pixels[rows, columns], rows, columns, kept)
            for key, pixels in images
            for rows, kept_rows in _spans(pixels.shape[0], window)
            for columns, kept_columns in _spans(pixels.shape[1], window)
            for kept in [(kept_rows, kept_columns)]
        )
        while chosen := list(islice(windows, batch)):
            start = time.perf_counter()
            outputs = self._averaged([seen for _, seen, *_ in chosen], views)
            maps = []
            for (key, seen, rows, columns, kept), output in zip(chosen, outputs):
                inner = _within(kept[0], rows), _within(kept[1], columns)
                scores = output["sem_seg"]
                uncertainty = output.get("error_probability", output.get("uncertainty"))
                found = [class_map(scores, str(key))]
                found.append(torch.exp(scores.amax(0) - scores.logsumexp(0)).cpu().numpy())
                if uncertainty is not None:
                    found.append(uncertainty.cpu().numpy())
                labels, confidence, *rest = (resized(one, seen.shape[:2])[inner] for one in found)
                maps.append((kept, labels, confidence, rest[0] if rest else None))
            seconds = (time.perf_counter() - start) / len(chosen)
            keys = [key for key, *_ in chosen]
            del chosen, outputs  # while the caller works
            yield from ((key, Part(*found, seconds)) for key, found in zip(keys, maps))

    def _averaged(
        self, windows: list[np.ndarray], views: list[tuple[float, bool]]
    ) -> list[dict[str, torch.Tensor]]:
        """The outputs for windows ``(h, w, 3)``, averaged over views (scale, whether mirrored)."""
        if views == [(1, False)]:
            return self._outputs(windows)
        total: list[dict[str, torch.Tensor]] = []
        for scale, flip in views:
            seen = [np.ascontiguousarray(one[:, ::-1]) for one in windows] if flip else windows
            outputs = [
                {name: values.flip(-1) if flip else values for name, values in output.items()}
                for output in self._outputs(seen, scale)
            ]
            for output in outputs:
                output["sem_seg"] = output["sem_seg"].log_softmax(0)
            if not total:
                total = outputs
                continue
            for mean, output in zip(total, outputs):
                mean["sem_seg"] = torch.logaddexp(mean["sem_seg"], output.pop("sem_seg"))
                for name, values in output.items():
                    mean[name] = mean[name] + values
        for mean in total:
            mean |= {name: mean[name] / len(views) for name in mean.keys() - {"sem_seg"}}
        return total

    def read(self, image: str | os.PathLike | np.ndarray) -> np.ndarray:
        """An image as training reads it, ``(H, W, 3)`` uint8, RGB."""
        if not isinstance(image, np.ndarray):
            return read_image(os.fspath(image), "RGB", self.cfg.INPUT.INTENSITIES or None)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"the image is {image.dtype} of shape {image.shape}: give (height, width, 3) uint8, RGB, "
                "or a file's name"
            )
        return image

    def read_reduced(self, image: str | os.PathLike) -> np.ndarray:
        """An image at most as large as the network sees it, RGB, so that a large one needs little memory."""
        pixels = self.read(image)
        height, width = self.mapper.resized(pixels)["image"].shape[1:]
        if height >= pixels.shape[0]:
            return pixels
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

    @torch.no_grad()
    def _outputs(self, images: list[np.ndarray], scale: float = 1) -> list[dict[str, torch.Tensor]]:
        if self.cfg.INPUT.FORMAT == "BGR":
            images = [pixels[:, :, ::-1] for pixels in images]
        return self.model([self.mapper.resized(pixels, scale) for pixels in images])


def _spans(length: int, window: int) -> list[tuple[slice, slice]]:
    """Windows along one side of an image: what each sees, and what of that is taken.

    Examples:
        >>> _spans(10, 8)
        [(slice(0, 8, None), slice(0, 5, None)), (slice(2, 10, None), slice(5, 10, None))]
    """
    if length <= window:
        return [(slice(0, length), slice(0, length))]
    overlap = window // 4
    number = math.ceil((length - overlap) / (window - overlap))
    starts = [i * (length - window) // (number - 1) for i in range(number)]
    seams = [(left + window + right) // 2 for left, right in zip(starts, starts[1:])]
    kept = zip([0, *seams], [*seams, length])
    return [(slice(start, start + window), slice(*ends)) for start, ends in zip(starts, kept)]


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def load(path: str | os.PathLike, opts: Sequence[object] = ()) -> Predictor:
    """A trained model, ready to predict.

    Args:
        path: a checkpoint of a run; a run's folder: its final checkpoint, or the last one; or a folder of
            :func:`pppc.model_folder.save_model_folder`.
        opts: KEY, VALUE, ... to change of the run's configuration.

    Raises:
        InputError: there is no such checkpoint, it does not say how it was trained, or it does not fit
            that configuration.

    Examples::

        model = pppc.load("output/demo/pppc")
        result = model.predict("street.png")
        result.labels, result.confidence, result.uncertainty, result.names
    """
    file = _checkpoint(user_path(os.fspath(path), "the model"))
    recorded = _recorded(file)
    if "settings" in recorded:  # a model's folder, for any machine
        device = "cuda" if torch.cuda.is_available() else "cpu"
        settings = recorded["settings"] | {"MODEL.DEVICE": device}
    else:
        settings = recorded
    cfg = settings_to_config(settings, file, ["MODEL.WEIGHTS", file, *opts])
    cfg.TEST.UNCERTAINTY = True
    return Predictor(cfg, recorded)


def _checkpoint(path: str) -> str:
    if not os.path.isdir(path):
        return local_path(path)
    last = Path(path, "last_checkpoint")
    last_name = last.read_text().strip() if last.is_file() else ""
    for name in ("model.safetensors", "model_final.pth", last_name):
        if name and os.path.isfile(file := os.path.join(path, name)):
            return file
    raise InputError(
        f"{path} holds no checkpoint: give a run's folder, a checkpoint, or a model's folder"
    )


def _recorded(file: str) -> dict:
    """Keys and values in a checkpoint of a run, or beside it; or the description of a model's folder."""
    try:
        content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        return dict(flat_settings(yaml.safe_load(content["trainer"]["config"])))
    except (EOFError, KeyError, RuntimeError, TypeError, pickle.UnpicklingError):
        pass
    beside = Path(file).with_name("config.yaml")
    if beside.is_file():
        return read_settings(str(beside))
    described = description(file)
    if isinstance(described.get("settings"), dict):
        return described
    raise InputError(
        f"{file} does not say how it was trained: put the run's config.yaml beside it, or the "
        "config.json of the model's folder"
    )
