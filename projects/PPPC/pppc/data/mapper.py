"""From a record to tensors: labeled source crops, whole target images, test images."""

import math

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from torch import Tensor
from torch.utils.data import default_collate

from ..errors import InputError
from ..pixel_batch import PixelBatch
from .array_cache import ArrayCache
from .augmentation import RESIZING, RESIZING_TO, CropOfSeveralClasses, numpy_seed, random_flip
from .images import image_size, read_image
from .labels import LabelReader

CROP_ATTEMPTS = 11  # the first and ten more, as published (DAFormer)
MAX_SCORED_PIXELS = 2**24  # of a predicted image; the scores of 19 classes then take 1.3 GB
MAX_SCORES = 2**26  # of an evaluated image, of all its classes: 0.27 GB


def _image_tensor(image: np.ndarray) -> Tensor:
    """``(H, W, 3)`` uint8 to a contiguous ``(3, H, W)`` tensor."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _padded(tensor: Tensor, padding: Tensor) -> Tensor:
    """``padding`` with ``tensor``, which is not larger, at its top left; of the padding's type."""
    if tensor.shape == padding.shape:
        return tensor
    height, width = tensor.shape[-2:]
    padded = padding.clone()
    padded[..., :height, :width] = tensor
    return padded


class SourceMapper:
    """Resize, random crop, flip and pad a labeled image.

    The crop is redrawn where one class fills it, and where it lacks the class that the image was
    drawn for.
    """

    @configurable
    def __init__(
        self,
        *,
        label_reader: LabelReader,
        image_format: str,
        min_size: tuple[int, ...],
        max_size: int,
        crop_size: tuple[int, int],
        single_category_max_area: float,
        min_area: float,
        min_crop_ratio: float,
        pad_value: tuple[float, ...],
        ignore_label: int,
        min_pixels: int = 0,
        resizing: str = "antialiased",
        min_size_sampling: str = "choice",
        flip: str = "horizontal",
        cache: str = "",
    ):
        """
        Args:
            label_reader: reads the data set's labels.
            image_format: "RGB" or "BGR".
            min_size, max_size: shortest and longest side after resizing, pixels.
            crop_size: (height, width), pixels. Smaller images are padded.
            single_category_max_area: redraw a crop that one class fills to more than this share.
            min_area: share of the label that a class covers in the images drawn for it.
            min_crop_ratio: share of those pixels that the crop must hold, after resizing.
            pad_value: of the image's channels, in [0, 255].
            ignore_label: of padded pixels.
            min_pixels: in place of min_area, pixels of the crop as it is; 0: min_area holds.
            resizing: see INPUT.RESIZING.
            min_size_sampling: min_size is a "choice" of shortest sides, or the "range" of them.
            flip: half of the images "horizontal" or "vertical", or "none".
            cache: folder for what is resized, where min_size is one (DATALOADER.CACHE); "": nowhere.
        """
        self.label_reader = label_reader
        self.image_format = image_format
        self.min_crop_ratio, self.min_area = min_crop_ratio, min_area
        self.min_pixels = min_pixels
        self.resize = RESIZING[resizing](min_size, max_size, min_size_sampling)
        rules = (label_reader.rules, image_format, min_size, max_size, resizing)
        files = ("file_name", "sem_seg_file_name")
        self.cache = ArrayCache(cache, files, *rules) if cache else None
        self.crop = CropOfSeveralClasses(
            "absolute", crop_size, single_category_max_area, ignore_label
        )
        self.flip = random_flip(flip)
        self.padding = torch.tensor(pad_value).view(-1, 1, 1).repeat(1, *crop_size)
        self.ignored = torch.full(crop_size, ignore_label, dtype=torch.uint8)

    @classmethod
    def from_config(cls, cfg: CfgNode, label_reader: LabelReader) -> dict:
        sampling = cfg.DATALOADER.RARE_CLASS_SAMPLING
        return {
            "label_reader": label_reader,
            "image_format": cfg.INPUT.FORMAT,
            "resizing": cfg.INPUT.RESIZING,
            "min_size": cfg.INPUT.MIN_SIZE_TRAIN,
            "max_size": cfg.INPUT.MAX_SIZE_TRAIN,
            "min_size_sampling": cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            "flip": cfg.INPUT.RANDOM_FLIP,
            "cache": cfg.DATALOADER.CACHE,
            "crop_size": tuple(cfg.INPUT.CROP.SIZE),
            "single_category_max_area": cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA,
            "min_area": sampling.MIN_AREA,
            "min_pixels": sampling.MIN_PIXELS,
            "min_crop_ratio": sampling.MIN_CROP_RATIO,
            "pad_value": tuple(cfg.MODEL.PIXEL_MEAN),  # 0 once it is normalized
            "ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        }

    def __call__(self, record: dict, train_id: int | None, seed: int) -> dict[str, Tensor]:
        """
        Args:
            record: with "file_name" and "sem_seg_file_name".
            train_id: the class that the crop is to show, or None.
            seed: of the augmentation.

        Returns:
            "image" ``(3, H, W)`` uint8, or float32 where it is padded, "label" ``(H, W)`` uint8, and
            "file", the image's.

        Raises:
            InputError: a file can't be read, or image and label differ in size.
        """
        with numpy_seed(seed):
            if self.cache is None:
                resized = self._resized(record)
            else:
                resized = self.cache(record, lambda: self._resized(record))
            sample = self._crop_showing(
                train_id, T.AugInput(resized["image"], sem_seg=resized["label"])
            )
            self.flip(sample)
        return {
            "image": _padded(_image_tensor(sample.image), self.padding),
            "label": _padded(torch.from_numpy(np.array(sample.sem_seg)), self.ignored),
            "file": record["file_name"],
        }

    def _resized(self, record: dict) -> dict[str, np.ndarray]:
        image = read_image(record["file_name"], self.image_format, record.get("intensities"))
        label = self.label_reader.read(record["sem_seg_file_name"])
        if image.shape[:2] != label.shape:
            raise InputError(
                f"{record['file_name']} is {image.shape[1]}x{image.shape[0]}, its label "
                f"{record['sem_seg_file_name']} {label.shape[1]}x{label.shape[0]} pixels: "
                "they must be of one size"
            )
        both = T.AugInput(image, sem_seg=label)
        self.resize(both)
        return {"image": both.image, "label": both.sem_seg}

    def _crop_showing(self, train_id: int | None, resized: T.AugInput) -> T.AugInput:
        """The first of some random crops with enough of a class, or the one with most of it."""
        pixels = self.min_pixels or self.min_area * resized.sem_seg.size
        enough = self.min_crop_ratio * pixels
        best, most = None, -1
        for _ in range(CROP_ATTEMPTS):
            sample = T.AugInput(resized.image, sem_seg=resized.sem_seg)
            self.crop(sample)
            if train_id is None:
                return sample
            shown = int(np.count_nonzero(sample.sem_seg == train_id))
            if shown > most:
                best, most = sample, shown
            if shown > enough:
                break
        return best


class TargetMapper:
    """Resize and flip a target image. No label is read; the training step chooses the crop.

    An image so narrow that the crop would not fit is enlarged until it does; of its longer side a part of
    at most ``max_size`` pixels, or of the crop's side, is taken at random.

    Args:
        image_format: "RGB" or "BGR".
        min_size, max_size: shortest and longest side after resizing, pixels.
        crop_size: (height, width) of the crop that will be cut from it, pixels.
        resizing, flip, cache: as in :class:`SourceMapper`. What is taken at random is not kept.
    """

    @configurable
    def __init__(
        self,
        *,
        image_format: str,
        min_size: int,
        max_size: int,
        crop_size: tuple[int, int],
        resizing: str = "antialiased",
        flip: str = "horizontal",
        cache: str = "",
    ):
        self.image_format = image_format
        self.min_size, self.max_size = min_size, max_size
        rules, files = (image_format, min_size, max_size, resizing), ("file_name", "day_file_name")
        self.cache = ArrayCache(cache, files, *rules) if cache else None
        self.resize = RESIZING[resizing](min_size, max_size)
        self.resize_to = RESIZING_TO[resizing]
        self.flip = random_flip(flip)
        self.crop_size = crop_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {
            "image_format": cfg.INPUT.FORMAT,
            "min_size": cfg.INPUT.TARGET.MIN_SIZE,
            "max_size": cfg.INPUT.TARGET.MAX_SIZE,
            "resizing": cfg.INPUT.RESIZING,
            "flip": cfg.INPUT.RANDOM_FLIP,
            "cache": cfg.DATALOADER.CACHE,
            "crop_size": tuple(cfg.INPUT.CROP.SIZE),
        }

    def fits(self, height: int, width: int) -> bool:
        """Whether the crop fits into an image of this size after resizing."""
        if self.min_size:  # 0: as it is
            height, width = self.resize.get_output_shape(
                height, width, self.min_size, self.max_size
            )
        return height >= self.crop_size[0] and width >= self.crop_size[1]

    def _resize(self, image: np.ndarray, place: float) -> T.Transform:
        size = image.shape[:2]
        if self.fits(*size):
            return self.resize.get_transform(image)
        scale = max(crop / side for side, crop in zip(size, self.crop_size))
        limit = self.max_size if self.min_size else max(size)
        # Of each side: the pixels that are taken, and what they become.
        part = [
            min(side, max(1, round(max(limit, crop) / scale)))
            for side, crop in zip(size, self.crop_size)
        ]
        new = [max(crop, round(scale * taken)) for taken, crop in zip(part, self.crop_size)]
        top, left = (int(place * (side - taken + 1)) for side, taken in zip(size, part))
        cut = T.CropTransform(left, top, part[1], part[0], size[1], size[0])
        return T.TransformList([cut, self.resize_to(*part, *new)])

    def __call__(self, record: dict, train_id: None, seed: int) -> dict[str, Tensor]:
        """
        Returns:
            "image" ``(3, H, W)`` uint8 and, where the record has a "day_file_name", "day_image",
            resized and flipped alike; "file", the image's; and "cut", the place in [0, 1)^2 where
            :func:`collate` cuts an image that is higher or wider than others of its batch.

        Raises:
            InputError: a file can't be read, or the day image has another size.
        """
        cut = tuple(np.random.default_rng(seed).random(2))
        with numpy_seed(seed):
            if self.cache is not None and self.fits(*image_size(record["file_name"])):
                images = self.cache(record, lambda: self._resized(record, cut[0]))
            else:
                images = self._resized(record, cut[0])
            flip = self.flip(T.AugInput(images["image"]))
        tensors = {name: _image_tensor(flip.apply_image(one)) for name, one in images.items()}
        return tensors | {"file": record["file_name"], "cut": cut}

    def _resized(self, record: dict, place: float) -> dict[str, np.ndarray]:
        def read(file: str) -> np.ndarray:
            return read_image(file, self.image_format, record.get("intensities"))

        images = {"image": read(record["file_name"])}
        if "day_file_name" in record:
            images["day_image"] = read(record["day_file_name"])
            if images["day_image"].shape != images["image"].shape:
                raise InputError(
                    f"{record['day_file_name']} has another size than its image by night, "
                    f"{record['file_name']}: they must be of one size"
                )
        resize = self._resize(images["image"], place)
        return {name: resize.apply_image(image) for name, image in images.items()}


class TestMapper:
    """Resize an image for evaluation; the original size is kept for the prediction.

    Args:
        image_format: "RGB" or "BGR".
        min_size, max_size: shortest and longest side after resizing, pixels.
        resizing: as in :class:`SourceMapper`.
        label_reader: reads the labels of records that have some, in the loader's processes; None:
            evaluators do.
        most_pixels: of an image that a model gives scores of at its size; of a larger one "at_network_size"
            is set.
    """

    __test__ = False  # not a test case, whatever its name says

    @configurable
    def __init__(
        self,
        *,
        image_format: str,
        min_size: int,
        max_size: int,
        resizing: str = "antialiased",
        label_reader: LabelReader | None = None,
        most_pixels: float = math.inf,
    ):
        self.most_pixels = most_pixels
        self.image_format = image_format
        self.resizing, self.min_size, self.max_size = resizing, min_size, max_size
        self.label_reader = label_reader

    @classmethod
    def from_config(cls, cfg: CfgNode, label_reader: LabelReader | None = None) -> dict:
        # Uncertainty is compared with labels at the image's size.
        bounded = label_reader is not None and not cfg.TEST.UNCERTAINTY
        return {
            "label_reader": label_reader,
            "most_pixels": MAX_SCORES / cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if bounded else math.inf,
            "image_format": cfg.INPUT.FORMAT,
            "min_size": cfg.INPUT.MIN_SIZE_TEST,
            "max_size": cfg.INPUT.MAX_SIZE_TEST,
            "resizing": cfg.INPUT.RESIZING,
        }

    def __call__(self, record: dict) -> dict:
        """The record with what :meth:`resized` gives, and its label as "sem_seg" ``(H, W)`` uint8."""
        image = read_image(record["file_name"], self.image_format, record.get("intensities"))
        sample = record | self.resized(image)
        if image.shape[0] * image.shape[1] > self.most_pixels:
            sample["at_network_size"] = True
        if self.label_reader is not None and "sem_seg_file_name" in record:
            sample["sem_seg"] = torch.from_numpy(self.label_reader.label_of(record))
        return sample

    def resized(self, image: np.ndarray, scale: float = 1) -> dict:
        """What a model takes of an image ``(H, W, 3)`` uint8, channels as ``image_format`` says.

        Args:
            image: as it was read.
            scale: its sides are so many times as long as they would be.

        Returns:
            "image" ``(3, h, w)`` uint8; "image_size", (H, W); "height" and "width" of the scores: H and W
            or, of an image of more than ``MAX_SCORED_PIXELS``, so many pixels.
        """
        height, width = size = image.shape[:2]
        low, high = self.min_size, self.max_size
        if scale != 1:
            sides = (low, high) if low else (min(size), max(size))
            low, high = (max(1, round(scale * side)) for side in sides)
        sample = T.AugInput(image)
        RESIZING[self.resizing](low, high)(sample)
        bound = min(1, math.sqrt(MAX_SCORED_PIXELS / (height * width)))
        height, width = (max(1, int(bound * side)) for side in size)
        return {
            "height": height,
            "width": width,
            "image_size": size,
            "image": _image_tensor(sample.image),
        }


def collate(samples: list[dict]) -> PixelBatch:
    """Stack samples, in a worker in shared memory.

    Images that are higher or wider than the smallest ones of their batch are cut to their size, at the place
    that their own seed gives ("cut").
    """
    height = min(sample["image"].shape[-2] for sample in samples)
    width = min(sample["image"].shape[-1] for sample in samples)

    def cut(sample: dict, name: str) -> Tensor:
        image = sample[name]
        down, right = image.shape[-2] - height, image.shape[-1] - width
        if not down and not right:
            return image
        top, left = (int(place * (room + 1)) for place, room in zip(sample["cut"], (down, right)))
        return image[..., top : top + height, left : left + width]

    def together(name: str) -> Tensor:
        tensors = [cut(sample, name) for sample in samples]
        if len({tensor.dtype for tensor in tensors}) > 1:  # some are padded, with the mean color
            tensors = [tensor.float() for tensor in tensors]
        return default_collate(tensors)

    names = [name for name, value in samples[0].items() if isinstance(value, Tensor)]
    return PixelBatch(
        **{name: together(name) for name in names},
        files=tuple(sample["file"] for sample in samples),
    )
