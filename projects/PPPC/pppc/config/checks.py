"""What can be wrong with the values of a configuration, found before anything is built.

A key's rule stands beside its default (:mod:`pppc.config.defaults`); here is what concerns several.
Detectron2's other keys have no effect, and are refused where they are set.
"""

import difflib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from shutil import which
from typing import NamedTuple

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from ..errors import InputError
from ..method.class_weights import log_frequency_class_weights
from .defaults import KEYS, add_pppc_config, by_key
from .device import require_training_device
from .rules import is_number

logger = logging.getLogger(__name__)


# Sections whose keys Detectron2's own parts read, beside those that have a rule.
PARTS_OF_DETECTRON2 = {
    "MODEL.BACKBONE.NAME": ("MODEL.BACKBONE.", "MODEL.RESNETS.", "MODEL.FPN."),
    "MODEL.SEM_SEG_HEAD.NAME": ("MODEL.SEM_SEG_HEAD.",),
}
OUR_BACKBONES = ("build_timm_backbone", "build_vit_backbone")
REGISTRIES = {
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
}


class Conflict(NamedTuple):
    """Keys, separated by spaces, whose values are right, but not together.

    ``found`` takes the values in this order; ``advice`` is what follows, and what to do.
    """

    keys: str
    found: Callable[..., bool]
    advice: str


def _weights_fail(frequencies: Sequence[float], spread: float) -> bool:
    try:
        log_frequency_class_weights(torch.tensor(frequencies), spread)
    except ValueError:
        return True
    return False


CONFLICTS = (
    Conflict("INPUT.MIN_SIZE_TRAIN INPUT.MAX_SIZE_TRAIN", lambda low, high: max(low) > high,
             "give a shortest side that is not above the longest"),
    Conflict("INPUT.MIN_SIZE_TEST INPUT.MAX_SIZE_TEST", lambda low, high: low > high,
             "give a shortest side that is not above the longest"),
    Conflict("INPUT.TARGET.MIN_SIZE INPUT.TARGET.MAX_SIZE", lambda low, high: low > high,
             "give a shortest side that is not above the longest"),
    Conflict("INPUT.MIN_SIZE_TRAIN_SAMPLING INPUT.MIN_SIZE_TRAIN",
             lambda sampling, sizes: sampling == "range" and (len(sizes), sizes[0]) != (2, min(sizes)),
             "a range takes two sizes, the smallest and the largest"),
    Conflict("DATALOADER.CACHE INPUT.MIN_SIZE_TRAIN", lambda cache, sizes: cache and len(sizes) > 1,
             "only images of one size are kept: give one size, or DATALOADER.CACHE ''"),
    Conflict("INPUT.CROP.SIZE INPUT.TARGET.MIN_SIZE INPUT.TARGET.MAX_SIZE PPPC.SELF_TRAINING.ENABLED",
             lambda crop, low, high, on: on and low > 0 and (min(crop) > low or max(crop) > high),
             "no resized target image holds the crop: lower INPUT.CROP.SIZE, or raise the other two"),
    Conflict("MODEL.SEM_SEG_HEAD.NUM_CLASSES MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
             lambda classes, ignored: ignored < classes,
             "the ignored value would be a class: give IGNORE_VALUE 255"),
    Conflict("PPPC.CONTRAST.ENABLED PPPC.SELF_TRAINING.ENABLED",
             lambda contrast, self_training: contrast and not self_training,
             "the prototypes come from the teacher's features: set both True, or both False"),
    Conflict("PPPC.MASKING.LOSS_WEIGHT PPPC.SELF_TRAINING.ENABLED",
             lambda weight, self_training: weight > 0 and not self_training,
             "there is no teacher: set PPPC.SELF_TRAINING.ENABLED True, or PPPC.MASKING.LOSS_WEIGHT 0"),
    Conflict("TEST.EVALUATE_TEACHER PPPC.SELF_TRAINING.ENABLED",
             lambda teacher, self_training: teacher and not self_training,
             "there is no teacher: set PPPC.SELF_TRAINING.ENABLED True, or TEST.EVALUATE_TEACHER False"),
    *(
        Conflict(f"TEST.SELECTION.SCORE {key}",
                 lambda score, there, name=name: score == name and not there, advice)
        for name, key, advice in (
            ("source_miou", "DATASETS.HELD_OUT",
             "no source image is held out of training: give DATASETS.HELD_OUT 5, or another score"),
            ("teacher_agreement", "PPPC.SELF_TRAINING.ENABLED", "there is no teacher: give another score"),
            ("prototype_margin", "PPPC.CONTRAST.ENABLED", "there are no prototypes: give another score"),
        )
    ),
    Conflict("PPPC.PROTOTYPES.CONVENTION MODEL.PROBABILISTIC_HEAD.VARIANCE_OVER_DIM "
             "MODEL.PROBABILISTIC_HEAD.LEARN_VARIANCE",
             lambda convention, over_dim, learnt: convention == "published" and (
                 over_dim or not learnt),
             "the published convention takes these numbers for variances, which are above 0: give "
             "CONVENTION 'log_variance'"),
    *(
        Conflict(f"DATASETS.{names}_WEIGHTS DATASETS.{names}",
                 lambda weights, names: len(weights) not in (0, len(names)),
                 "give one weight of each data set, or none")
        for names in ("TRAIN", "TARGET")
    ),
    *(
        Conflict(f"PPPC.CLASS_WEIGHTS.{spread} PPPC.CLASS_WEIGHTS.FREQUENCIES "
                 "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
                 lambda spread, shares, classes: spread > 0 and len(shares) != classes,
                 f"give one frequency of each class, or {spread} 0")
        for spread in ("TRAIN_SPREAD", "TEST_SPREAD")
    ),
    *(
        Conflict(f"PPPC.CLASS_WEIGHTS.{spread} PPPC.CLASS_WEIGHTS.FREQUENCIES",
                 lambda spread, shares: spread > 0 and bool(shares) and _weights_fail(shares, spread),
                 f"a class's weight would be 0 or less: lower {spread}, or give frequencies above 0")
        for spread in ("TRAIN_SPREAD", "TEST_SPREAD")
    ),
    Conflict("PPPC.AMBIGUITY_CROP.REUSE_LABELS PPPC.AMBIGUITY_CROP.SCALE",
             lambda reuse, scale: reuse and scale != 1,
             "labels of smaller images are none of the crop's pixels: set SCALE 1.0, or REUSE_LABELS False"),
    Conflict("MODEL.RECOMPUTE MODEL.BACKBONE.NAME",
             lambda what, backbone: what == "encoder" and backbone not in OUR_BACKBONES,
             "only timm's encoders can: set MODEL.RECOMPUTE none"),
    Conflict("SOLVER.NESTEROV SOLVER.MOMENTUM", lambda nesterov, momentum: nesterov and not momentum,
             "Nesterov's method needs a momentum above 0"),
    Conflict("SOLVER.LR_SCHEDULER_NAME SOLVER.BASE_LR_END SOLVER.BASE_LR",
             lambda name, end, start: name == "WarmupCosineLR" and end > start,
             "give a last learning rate that is not above the first"),
)  # fmt: skip

# What stops training alone.
TRAINING_CONFLICTS = (
    *(
        Conflict("TRACKERS", lambda names, name=name: name in names and not find_spec(name),
                 f"{name} is not installed: pip install {name}")
        for name in ("wandb", "mlflow")
    ),
    Conflict("MODEL.COMPILE", lambda mode: bool(mode) and not which(os.environ.get("CXX", "g++")),
             "torch.compile finds no C++ compiler: install g++, or set MODEL.COMPILE ''"),
    Conflict("DATASETS.TRAIN", lambda names: not names,
             "name a labeled source data set, such as ('gta_train',)"),
    Conflict("DATASETS.TARGET PPPC.SELF_TRAINING.ENABLED", lambda names, on: on and not names,
             "name a target data set, such as ('cityscapes_train_unlabeled',), or train on the "
             "source alone with PPPC.SELF_TRAINING.ENABLED False and PPPC.CONTRAST.ENABLED False"),
    Conflict("TEST.CALIBRATION DATASETS.HELD_OUT",
             lambda by, held_out: by == "source" and not held_out,
             "no source image is held out of training: give DATASETS.HELD_OUT 5, or another calibration"),
    Conflict("TEST.CALIBRATION TEST.SELECTION.IMAGES DATASETS.TARGET",
             lambda by, images, target: by != "none" and not (images and target),
             "there are no images to look at: give TEST.SELECTION.IMAGES 16 and DATASETS.TARGET"),
)  # fmt: skip

# What training can go on with, though it is hardly what is meant.
WARNINGS = (
    Conflict("PPPC.CONTRAST.START_ITER SOLVER.MAX_ITER PPPC.CONTRAST.ENABLED",
             lambda start, end, on: on and start >= end, "the contrast never begins"),
    Conflict("SOLVER.WARMUP_ITERS SOLVER.MAX_ITER", lambda warmup, end: warmup > end,
             "the learning rate never reaches SOLVER.BASE_LR"),
    Conflict("INPUT.CROP.SIZE INPUT.MIN_SIZE_TRAIN INPUT.MAX_SIZE_TRAIN",
             lambda crop, low, high: 0 < max(low) < min(crop) or high < max(crop),
             "no resized source image fills the crop: the rest is ignored pixels"),
    Conflict("PPPC.AMBIGUITY_CROP.REUSE_LABELS PPPC.AMBIGUITY_CROP.CRITERION "
             "PPPC.AMBIGUITY_CROP.NUM_CANDIDATES",
             lambda reuse, criterion, number: reuse and (criterion == "random" or number == 1),
             "a random crop is chosen without labels, so that there are none to use again"),
    Conflict("DATASETS.TRAIN DATASETS.TARGET", lambda source, target: set(source) & set(target),
             "source and target are the same images: there is nothing to adapt to"),
)  # fmt: skip


def _has_type_of(value: object, default: object) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    if isinstance(default, float):
        return is_number(value)
    return default is None or type(value) is type(default)


def _listed(value: object) -> object:
    """``value`` with lists for tuples, as a written configuration has them inside of others."""
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def _sections_of_parts(values: dict[str, object]) -> tuple[str, ...] | None:
    """The sections that parts which are not this project's may read; None: all parts are its own."""
    sections: list[str] = []
    foreign = False
    for key, registry in REGISTRIES.items():
        name = values.get(key)
        module = registry.get(name).__module__ if name in registry else "pppc."
        if module.startswith("detectron2."):
            sections += PARTS_OF_DETECTRON2.get(key, ())
        elif not module.startswith("pppc."):
            sections.append("MODEL.")
        foreign |= not module.startswith("pppc.")
    return tuple(sections) if foreign else None


def wrong_values(cfg: CfgNode) -> list[str]:
    """A sentence for every key of ``cfg`` whose value is wrong by itself, or without effect.

    Where a part is not this project's, its keys are its own; other keys without effect are a warning.
    """
    defaults = get_cfg()
    add_pppc_config(defaults)
    values = dict(by_key(cfg))
    sections = _sections_of_parts(values)
    problems = []
    for key, default in by_key(defaults):
        value = values.get(key, default)
        if key in KEYS:
            rule = KEYS[key].rule
            if not _has_type_of(value, default) or not rule.holds(value):
                problems.append(f"{key} is {value!r}: give {rule.words}")
        elif _listed(value) != _listed(default):
            text = f"{key} is {value!r}, but it has no effect in this project"
            if sections is None:
                problems.append(f"{text}: leave it at {default!r}")
            elif not key.startswith(sections):
                logger.warning(text)
    return problems


def _conflicts(cfg: CfgNode, conflicts: tuple[Conflict, ...]) -> Iterator[str]:
    values = dict(by_key(cfg))
    for conflict in conflicts:
        keys = conflict.keys.split()
        if conflict.found(*(values[key] for key in keys)):
            given = " and ".join(f"{key} is {values[key]!r}" for key in keys)
            yield f"{given}: {conflict.advice}"


def _unknown_static_classes(cfg: CfgNode) -> Iterator[str]:
    """STATIC_CLASSES that the target lacks."""
    key, name = "PPPC.SELF_TRAINING.STATIC_CLASSES", next(iter(cfg.DATASETS.TARGET), None)
    names = cfg.PPPC.SELF_TRAINING.STATIC_CLASSES
    if name not in DatasetCatalog.list():
        return
    classes = MetadataCatalog.get(name).stuff_classes
    for unknown in [n for n in names if n not in classes]:
        near = difflib.get_close_matches(unknown, classes, 1) or classes
        yield f"{key} names {unknown!r}, which is no class of {name}: give {' or '.join(near)}"


def check_config(cfg: CfgNode, training: bool = True) -> None:
    """See, before any time is spent, that the values of a configuration can be used, for ``training``, too.

    What training can go on with, but is hardly meant, is logged as a warning.

    Raises:
        InputError: values are not what their keys can have, or are not together; all of them are named.
    """
    problems = wrong_values(cfg) or [*_conflicts(cfg, CONFLICTS), *_unknown_static_classes(cfg)]
    if training and not problems:
        problems = list(_conflicts(cfg, TRAINING_CONFLICTS))
    if problems:
        raise InputError("; ".join(problems))
    if training:
        require_training_device(cfg)
        for doubt in _conflicts(cfg, WARNINGS):
            logger.warning(doubt)
