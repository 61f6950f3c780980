"""A fixed draw of pixels of unlabeled target images, and of labeled source images.

Shapes: I images, P pixels of each, C classes, H x W pixels of an image, h x w positions of its scores.
"""

import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.evaluation import inference_context
from torch import Tensor

from ..data import label_reader
from ..data.catalog import dataset_records, source_records, with_intensities
from ..data.mapper import TestMapper
from ..errors import InputError
from ..method.mixing import Gates, StrongAugmentation, class_mix, class_mix_mask
from ..modeling.meta_arch import PPPCSegmentor
from .mean_iou import confusion_matrix
from .selection import DrawnPixels

PIXELS = 1024  # of each image


class _Place(NamedTuple):
    """Drawn pixels of an image, as shares of its height and width, ``(P,)`` each in [0, 1)."""

    down: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, file_name: str) -> Self:
        return cls(*np.random.default_rng(_seed(file_name)).random((2, PIXELS)))

    def of_map(self, values: Tensor) -> Tensor:
        """The values ``(..., P)`` of a map ``(..., h, w)`` of the image."""
        height, width = values.shape[-2:]
        return values[..., (self.down * height).astype(int), (self.right * width).astype(int)]


class PixelDraw:
    """The same pixels of the same images at every evaluation; which pixels, an image's name decides.

    Images are those of DATASETS.TARGET and of the source's held-out images, or else of those that are
    trained on, evenly spaced over their lists, resized as test images are.

    Args:
        cfg: the configuration.
        model: that is trained, whose range of values of more than 8 bits target images are read with.
        source_shares: of the classes in the source's labels, ``(C,)``.

    Attributes:
        files: the names of the target images.

    Raises:
        InputError: a data set can't be listed.
    """

    def __init__(self, cfg: CfgNode, model: PPPCSegmentor, source_shares: Tensor):
        number = cfg.TEST.SELECTION.IMAGES
        target_cfg, names = with_intensities(cfg, model), cfg.DATASETS.TARGET
        target = [one for name in names for one in dataset_records(target_cfg, name, names)]
        self.target = _spread(target, number)
        trained_on, held_out = [], []
        for name in cfg.DATASETS.TRAIN:
            reader = label_reader(cfg, name)
            for part, records in zip((trained_on, held_out), source_records(cfg, name)):
                part += [record | {"reader": reader} for record in records]
        self.held_out = bool(held_out)
        self.source = _spread(held_out or trained_on, number)
        self.files = [Path(record["file_name"]).name for record in self.target]
        self.source_shares = source_shares
        self.mapper = TestMapper(cfg)
        self.skip = cfg.DATALOADER.UNREADABLE == "skip"
        self.augmentation = StrongAugmentation(image_format=cfg.INPUT.FORMAT)

    @torch.no_grad()
    def __call__(self, model: PPPCSegmentor, former: Sequence[Tensor] = ()) -> DrawnPixels:
        """What a model says of them.

        Args:
            model: in any mode; it stays as it is.
            former: ``candidates`` of the models before it.

        Raises:
            InputError: an image can't be read (with DATALOADER.UNREADABLE "skip", none of a domain can).
        """
        with inference_context(model):
            samples, maps = self._read(self.target), []
            seen: dict[str, list[Tensor]] = defaultdict(list)
            for sample in samples:
                view, class_map = self._view(model, sample)
                _append(seen, view)
                maps.append(class_map)
            for i in range(len(samples) if len(samples) > 1 else 0):
                # Each with the one before it, the first with the last.
                _append(seen, _mixed(model, samples[i], samples[i - 1], maps[i], maps[i - 1]))
            source = self._source_confusion(model)
        views = {name: torch.stack(values).cpu() for name, values in seen.items()}
        none = torch.empty(0, *views["strong"].shape, dtype=torch.uint8)
        return DrawnPixels(
            **views,
            source_shares=self.source_shares,
            source=source,
            held_out=self.held_out,
            former=torch.cat([none, *former]),
        )

    @torch.no_grad()
    def outputs(self, model: PPPCSegmentor, of_source: bool) -> dict[str, Tensor]:
        """What a model predicts for the drawn pixels of source images, or else of target images.

        Returns:
            of P pixels the maps of ``PPPCSegmentor.predictions``, not calibrated, "sem_seg" as
            ``(P, C)``, others ``(P,)``. Of source images also "label", ``(P,)``; of target images "classes",
            those of the model and of its teacher, ``(1 or 2, I, P / I)`` uint8.

        Raises:
            InputError: as a call does.
        """
        before = model.output_uncertainty, model.calibrated
        found: dict[str, list[Tensor]] = defaultdict(list)
        with inference_context(model):
            model.output_uncertainty, model.calibrated = True, False
            for sample in self._read(self.source if of_source else self.target):
                place, name = _Place.of(sample["file_name"]), sample["file_name"]
                (output,) = model([sample])
                maps = {key: place.of_map(values) for key, values in output.items()}
                if of_source:
                    label = place.of_map(torch.from_numpy(sample["reader"].label_of(sample)))
                    maps["label"] = label.to(model.device).long()
                else:
                    own = [maps["sem_seg"].argmax(0).byte()]
                    if model.teacher is not None:
                        logits = model.teacher_logits(_image(model, sample))
                        classes = _class_map(model, logits, name)
                        own.append(place.of_map(classes))
                    maps["classes"] = torch.stack(own)
                _append(found, maps)
            model.output_uncertainty, model.calibrated = before
        joined = {
            name: torch.stack(values, 1) if name == "classes" else torch.cat(values, -1)
            for name, values in found.items()
        }
        return joined | {"sem_seg": joined["sem_seg"].T}

    def _read(self, records: list[dict]) -> list[dict]:
        samples = []
        for record in records:
            try:
                samples.append(self.mapper(record))
            except InputError:
                if not self.skip:
                    raise
        if not samples:
            first = records[0]["file_name"]
            raise InputError(f"none of {len(records)} images can be read, such as {first}")
        return samples

    def _view(self, model: PPPCSegmentor, sample: dict) -> tuple[dict[str, Tensor], Tensor]:
        """What is seen of a target image, and its class map ``(h, w)`` uint8."""
        name, image = sample["file_name"], _image(model, sample)
        place = _Place.of(name)
        output = model.predicting_output(image, embedding=model.prototypes is not None)
        scores = _scores(model, output.logits, name)
        generator = torch.Generator().manual_seed(_seed(name))
        strong = self.augmentation(image, Gates(jitter=True, blur=True), generator)
        view = {
            "probabilities": place.of_map(scores).T.softmax(1),
            "strong": place.of_map(_class_map(model, model.predicting_output(strong).logits, name)),
        }
        if model.teacher is not None:
            classes = _class_map(model, model.teacher_logits(image), name)
            view["teacher"] = place.of_map(classes)
        if model.prototypes is not None:
            view["margin"] = _margin(
                model, place.of_map(output.mean[0]).T, place.of_map(output.log_var[0]).T
            )
        return view, scores.argmax(0).byte()

    def _source_confusion(self, model: PPPCSegmentor) -> np.ndarray:
        """Of the drawn pixels of source images, rows are labels."""
        num_classes = len(self.source_shares)
        confusion = np.zeros((num_classes, num_classes), np.int64)
        for sample in self._read(self.source):
            name, label = sample["file_name"], sample["reader"].label_of(sample)
            place, output = _Place.of(name), model.predicting_output(_image(model, sample))
            classes = _class_map(model, output.logits, name)
            confusion += confusion_matrix(
                place.of_map(classes).cpu().numpy(), place.of_map(label), num_classes
            )
        return confusion


def _mixed(
    model: PPPCSegmentor, sample: dict, partner: dict, class_map: Tensor, partner_map: Tensor
) -> dict[str, Tensor]:
    """What is seen of half of an image's predicted classes, pasted onto another image."""
    name, image = sample["file_name"], _image(model, sample)
    size, place = image.shape[-2:], _Place.of(sample["file_name"])
    generator = torch.Generator().manual_seed(_seed(name))
    mask = class_mix_mask(class_map[None].long(), generator)
    onto = F.interpolate(_image(model, partner), size, mode="bilinear", antialias=True)
    partner_map = F.interpolate(partner_map[None, None], class_map.shape, mode="nearest")[0, 0]
    pixels = F.interpolate(mask[None].byte(), size, mode="nearest")
    output = model.predicting_output(class_mix(image, onto, pixels))
    classes = _class_map(model, output.logits, name)
    views = {
        "mixed": classes,
        "before_mix": class_mix(class_map[None], partner_map[None], mask)[0],
        "alike": class_map == partner_map,
    }
    return {view: place.of_map(values) for view, values in views.items()}


def _append(lists: dict[str, list[Tensor]], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        lists[name].append(value)


def _image(model: PPPCSegmentor, sample: dict) -> Tensor:
    return sample["image"].to(model.device).float()[None]


def _scores(model: PPPCSegmentor, logits: Tensor, name: str) -> Tensor:
    """Class scores as they are predicted, ``(C, h, w)``, at the size in which a network gives them."""
    return model.scores(logits, logits.shape[-2:], name)[0]


def _class_map(model: PPPCSegmentor, logits: Tensor, name: str) -> Tensor:
    """The classes that are predicted for an image by a network's ``(1, C, h, w)``, ``(h, w)`` uint8."""
    return _scores(model, logits, name).argmax(0).byte()


def _margin(model: PPPCSegmentor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Of pixels ``(P, D)`` the probability of the likeliest class over that of the second, ``(P,)``."""
    prototypes = model.prototypes
    seen = prototypes.seen | ~prototypes.seen.any()
    logits = model.contrast.class_logits(
        mean.float(), log_var.float(), prototypes.mean, prototypes.log_var, seen
    )
    first, second = logits.softmax(1).topk(2).values.T
    return first - second


def _seed(file_name: str) -> int:
    return zlib.crc32(Path(file_name).name.encode())


def _spread(records: list[dict], number: int) -> list[dict]:
    """That many records, evenly spaced."""
    return records[:: max(1, len(records) // number)][:number]
