"""What can be wrong with the values of a configuration, found before anything is built.

Every key that has an effect here has a rule, what its value must be (:func:`rules`). Detectron2's
other keys have none, and are refused where they are set.
"""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from fvcore.common.registry import Registry

from ..errors import InputError
from ..method.gaussian import SCORES
from ..method.prototypes import UPDATE_RULES, VARIANCES
from ..modeling.network import MIXED_PRECISION_TYPES
from ..modeling.recompute import RECOMPUTE
from .defaults import add_pppc_config
from .device import check_training_device

__all__ = ["check_config", "check_values", "flat", "rules", "wrong_values"]

logger = logging.getLogger(__name__)


class Rule(NamedTuple):
    """What the values of some keys must be.

    Attributes:
        words: the same in words, after "give".
        holds: of a value that has the default's type.
        keys: separated by spaces.
    """

    words: str
    holds: Callable[[object], bool]
    keys: str


def _one_of(names: Sequence[str], keys: str) -> Rule:
    return Rule(f"one of {', '.join(map(repr, names))}", lambda value: value in names, keys)


def _numbers(low: float = -math.inf, count: int | None = None, whole: bool = False):
    """A condition: a list of numbers from ``low`` on."""
    types = int if whole else (int, float)
    return lambda values: (
        (len(values) == count if count else len(values) > 0)
        and all(_is_number(v, types) and v >= low for v in values)
    )


def _is_number(value: object, types: type | tuple[type, ...] = (int, float)) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)


def _are_names(values: list) -> bool:
    return all(isinstance(v, str) and v for v in values) and len(set(values)) == len(values)


RULES = (
    Rule("True or False", lambda value: True, """
        CUDNN_BENCHMARK DATALOADER.RARE_CLASS_SAMPLING.ENABLED
        MODEL.PROBABILISTIC_HEAD.LEARN_VARIANCE MODEL.SYNC_BATCH_NORM MODEL.TIMM.PRETRAINED
        MODEL.WEIGHTS_OTHER_CLASSES PPPC.AMBIGUITY_CROP.STANDARDIZE PPPC.CONTRAST.ENABLED
        PPPC.PROTOTYPES.INCLUDE_TARGET PPPC.SELF_TRAINING.ENABLED PPPC.TEACHER.BATCH_STATISTICS
        SOLVER.AMP.ENABLED SOLVER.CLIP_GRADIENTS.ENABLED SOLVER.NESTEROV SOLVER.RESCALE_INTERVAL
        TEST.EVALUATE_TEACHER TEST.UNCERTAINTY"""),
    Rule("a whole number, 1 or more", lambda value: value >= 1, """
        INPUT.MAX_SIZE_TEST INPUT.MAX_SIZE_TRAIN INPUT.TARGET.MAX_SIZE
        MODEL.PROBABILISTIC_HEAD.DIM MODEL.PROBABILISTIC_HEAD.NUM_CONVS MODEL.SEM_SEG_HEAD.CONVS_DIM
        PPPC.AMBIGUITY_CROP.NUM_CANDIDATES PPPC.AMBIGUITY_CROP.TOP_K SOLVER.CHECKPOINT_PERIOD
        SOLVER.IMS_PER_BATCH SOLVER.MAX_ITER SOLVER.NUM_DECAYS SOLVER.TARGET_IMS_PER_BATCH"""),
    Rule("a whole number, 0 or more", lambda value: value >= 0, """
        DATALOADER.CHECK_SAMPLE DATALOADER.NUM_WORKERS INPUT.MIN_SIZE_TEST INPUT.TARGET.MIN_SIZE
        MODEL.PROBABILISTIC_HEAD.MID_CHANNELS PPPC.CONTRAST.MAX_PIXELS_PER_CLASS
        PPPC.CONTRAST.START_ITER PPPC.SELF_TRAINING.IGNORE_BOTTOM PPPC.SELF_TRAINING.IGNORE_TOP
        SOLVER.MAX_TO_KEEP SOLVER.WARMUP_ITERS TEST.EVAL_PERIOD VIS_PERIOD"""),
    Rule("a whole number from 2 to 255", lambda value: 2 <= value <= 255,
         "MODEL.SEM_SEG_HEAD.NUM_CLASSES"),
    Rule("a whole number from 0 to 255", lambda value: 0 <= value <= 255,
         "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"),
    Rule("a whole number from 0 to 4294967295, or -1 to have one drawn",
         lambda value: -1 <= value < 2**32, "SEED"),
    Rule("32, 16 or 8", lambda value: value in (32, 16, 8), "MODEL.TIMM.OUTPUT_STRIDE"),
    Rule("a number above 0", lambda value: value > 0, """
        DATALOADER.RARE_CLASS_SAMPLING.TEMPERATURE PPPC.AMBIGUITY_CROP.TEMPERATURE
        PPPC.CONTRAST.TEMPERATURE SOLVER.BASE_LR SOLVER.CLIP_GRADIENTS.CLIP_VALUE
        SOLVER.CLIP_GRADIENTS.NORM_TYPE SOLVER.GAMMA SOLVER.POLY_LR_POWER"""),
    Rule("a number, 0 or more", lambda value: value >= 0, """
        PPPC.CLASS_WEIGHTS.TEST_SPREAD PPPC.CLASS_WEIGHTS.TRAIN_SPREAD PPPC.CONTRAST.KL_WEIGHT
        PPPC.CONTRAST.LOSS_WEIGHT SOLVER.BASE_LR_END SOLVER.BIAS_LR_FACTOR SOLVER.HEAD_LR_FACTOR
        SOLVER.VARIANCE_LR_FACTOR SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_NORM"""),
    Rule("a number, 0 or less", lambda value: value <= 0, "PPPC.CONTRAST.RAMP_MULTIPLIER"),
    Rule("a number from 0 to 1", lambda value: 0 <= value <= 1, """
        DATALOADER.MAX_UNREADABLE DATALOADER.RARE_CLASS_SAMPLING.MIN_AREA
        DATALOADER.RARE_CLASS_SAMPLING.MIN_CROP_RATIO PPPC.CONTRAST.TARGET_THRESHOLD
        PPPC.PROTOTYPES.FORGETTING PPPC.SELF_TRAINING.THRESHOLD
        PPPC.STRONG_AUGMENTATION.BLUR_PROBABILITY PPPC.STRONG_AUGMENTATION.JITTER_PROBABILITY
        SOLVER.WARMUP_FACTOR"""),
    Rule("a number from 0 to below 1", lambda value: 0 <= value < 1, """
        MODEL.SEM_SEG_HEAD.DROPOUT MODEL.TIMM.DROP_PATH_RATE PPPC.PROTOTYPES.MOMENTUM
        PPPC.TEACHER.MOMENTUM SOLVER.MOMENTUM SOLVER.POLY_LR_CONSTANT_ENDING"""),
    Rule("a number above 0, at most 1", lambda value: 0 < value <= 1,
         "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA PPPC.AMBIGUITY_CROP.SCALE"),
    Rule("a number from 0 to 0.5", lambda value: 0 <= value <= 0.5,
         "PPPC.STRONG_AUGMENTATION.JITTER_STRENGTH"),
    Rule("a number from -30 to 30", lambda value: -30 <= value <= 30,
         "MODEL.PROBABILISTIC_HEAD.LOG_VARIANCE_SHIFT"),
    Rule("None, or a number, 0 or more",
         lambda value: value is None or _is_number(value) and value >= 0,
         "SOLVER.WEIGHT_DECAY_BIAS"),
    Rule("two numbers from 0 to below 1, such as (0.9, 0.999)",
         lambda values: _numbers(0, 2)(values) and max(values) < 1, "SOLVER.BETAS"),
    Rule("height and width, two whole numbers, 1 or more, such as [640, 640]",
         _numbers(1, 2, whole=True), "INPUT.CROP.SIZE"),
    Rule("three numbers, one for each channel, 0 or more", _numbers(0, 3), "MODEL.PIXEL_MEAN"),
    Rule("three numbers, one for each channel, above 0",
         lambda values: _numbers(0, 3)(values) and min(values) > 0, "MODEL.PIXEL_STD"),
    Rule("a list of one whole number or more, such as (720,)", _numbers(0, whole=True),
         "INPUT.MIN_SIZE_TRAIN"),
    Rule("a list of one whole number or more, 1 or more each, such as [48]",
         _numbers(1, whole=True),
         "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS"),
    Rule("a list of rising whole numbers, such as (30000,)",
         lambda values: (
             _numbers(1, whole=True)([1, *values]) and sorted(set(values)) == list(values)
         ),
         "SOLVER.STEPS"),
    Rule("a list of numbers above 0, one of each class",
         lambda values: not values or _numbers(0)(values) and min(values) > 0,
         "PPPC.CLASS_WEIGHTS.FREQUENCIES"),
    Rule("a list of one data set's name, such as ('gta_train',)",
         lambda values: _are_names(values) and len(values) <= 1, "DATASETS.TRAIN DATASETS.TARGET"),
    Rule("a list of different names, such as ('cityscapes_val',)", _are_names, "DATASETS.TEST"),
    Rule("a list of different names", _are_names, "PPPC.SELF_TRAINING.STATIC_CLASSES"),
    Rule("a list of one name or more, all different, such as ['stage1', 'stage4']",
         lambda values: len(values) > 0 and _are_names(values),
         "MODEL.SEM_SEG_HEAD.IN_FEATURES MODEL.PROBABILISTIC_HEAD.IN_FEATURES"),
    Rule("a list of results as Detectron2 takes it", lambda values: True, "TEST.EXPECTED_RESULTS"),
    Rule("text", lambda value: True, "MODEL.WEIGHTS"),
    Rule("a name", lambda value: bool(value), "OUTPUT_DIR MODEL.TIMM.NAME"),
    Rule("'cpu', 'cuda' or 'cuda:NUMBER'",
         lambda value: bool(re.fullmatch(r"cpu|cuda(:\d+)?", value)), "MODEL.DEVICE"),
    Rule("2", lambda value: value == 2, "VERSION"),
    _one_of(("error", "skip"), "DATALOADER.UNREADABLE"),
    _one_of(("RGB", "BGR"), "INPUT.FORMAT"),
    _one_of(("percentiles", "full_range"), "INPUT.HIGH_BIT_DEPTH"),
    _one_of(("choice", "range"), "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
    _one_of(("none", "horizontal", "vertical"), "INPUT.RANDOM_FLIP"),
    _one_of(RECOMPUTE, "MODEL.RECOMPUTE"),
    # Only newer versions of Detectron2 have it.
    _one_of(("", "highest", "high", "medium"), "FLOAT32_PRECISION"),
    Rule("'BN', 'GN', 'LN', 'FrozenBN' or '' (for BN of all processes MODEL.SYNC_BATCH_NORM True)",
         lambda value: value in ("BN", "GN", "LN", "FrozenBN", ""), "MODEL.SEM_SEG_HEAD.NORM"),
    _one_of(UPDATE_RULES, "PPPC.PROTOTYPES.UPDATE_RULE"),
    _one_of(VARIANCES, "PPPC.PROTOTYPES.VARIANCE"),
    _one_of(tuple(MIXED_PRECISION_TYPES), "SOLVER.AMP.TYPE"),
    _one_of(("value", "norm", "full_model"), "SOLVER.CLIP_GRADIENTS.CLIP_TYPE"),
    _one_of(("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
            "SOLVER.LR_SCHEDULER_NAME"),
    _one_of(("AdamW", "SGD"), "SOLVER.OPTIMIZER"),
    _one_of(("linear", "constant"), "SOLVER.WARMUP_METHOD"),
)  # fmt: skip


def _parts(registry: Registry, *fitting: str) -> list[str]:
    """This project's parts and the user's own, and ``fitting``: Detectron2's others have another
    interface."""
    return [
        name
        for name, part in registry
        if name in fitting or not part.__module__.startswith("detectron2.")
    ]


# Keys that take a name of which users can add more, so that each is asked for when it is needed.
NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "MODEL.BACKBONE.NAME": lambda: _parts(BACKBONE_REGISTRY),
    "MODEL.META_ARCHITECTURE": lambda: _parts(META_ARCH_REGISTRY),
    "MODEL.SEM_SEG_HEAD.NAME": lambda: _parts(
        SEM_SEG_HEADS_REGISTRY, "SemSegFPNHead", "DeepLabV3PlusHead"
    ),
    "PPPC.CONTRAST.SCORE": lambda: SCORES,
}
# Keys that have an effect on these heads of Detectron2 alone.
DETECTRON2_HEADS = {
    "SemSegFPNHead": ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE",),
    "DeepLabV3PlusHead": tuple(
        f"MODEL.SEM_SEG_HEAD.{key}"
        for key in ("ASPP_CHANNELS", "ASPP_DROPOUT", "COMMON_STRIDE", "PROJECT_FEATURES",
                    "USE_DEPTHWISE_SEPARABLE_CONV")
    ),
}  # fmt: skip


class Conflict(NamedTuple):
    """Keys whose values are right, but not together.

    Attributes:
        keys: separated by spaces.
        found: of their values, in this order.
        advice: what follows, and what to do.
    """

    keys: str
    found: Callable[..., bool]
    advice: str


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
    Conflict("INPUT.CROP.SIZE INPUT.TARGET.MIN_SIZE INPUT.TARGET.MAX_SIZE PPPC.SELF_TRAINING.ENABLED",
             lambda crop, low, high, on: on and low > 0 and (min(crop) > low or max(crop) > high),
             "no resized target image holds the crop: lower INPUT.CROP.SIZE, or raise the other two"),
    Conflict("MODEL.SEM_SEG_HEAD.NUM_CLASSES MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
             lambda classes, ignored: ignored < classes,
             "the ignored value would be a class: give IGNORE_VALUE 255"),
    Conflict("PPPC.CONTRAST.ENABLED PPPC.SELF_TRAINING.ENABLED",
             lambda contrast, self_training: contrast and not self_training,
             "the prototypes come from the teacher's features: set both True, or both False"),
    Conflict("TEST.EVALUATE_TEACHER PPPC.SELF_TRAINING.ENABLED",
             lambda teacher, self_training: teacher and not self_training,
             "there is no teacher: set PPPC.SELF_TRAINING.ENABLED True, or TEST.EVALUATE_TEACHER False"),
    Conflict("TEST.UNCERTAINTY PPPC.CONTRAST.ENABLED",
             lambda uncertainty, contrast: uncertainty and not contrast,
             "there is no embedding to tell it: set PPPC.CONTRAST.ENABLED True, or TEST.UNCERTAINTY "
             "False"),
    *(
        Conflict(f"PPPC.CLASS_WEIGHTS.{spread} PPPC.CLASS_WEIGHTS.FREQUENCIES "
                 "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
                 lambda spread, shares, classes: spread > 0 and len(shares) != classes,
                 f"give one frequency of each class, or {spread} 0")
        for spread in ("TRAIN_SPREAD", "TEST_SPREAD")
    ),
    Conflict("SOLVER.NESTEROV SOLVER.MOMENTUM", lambda nesterov, momentum: nesterov and not momentum,
             "Nesterov's method needs a momentum above 0"),
    Conflict("SOLVER.LR_SCHEDULER_NAME SOLVER.BASE_LR_END SOLVER.BASE_LR",
             lambda name, end, start: name == "WarmupCosineLR" and end > start,
             "give a last learning rate that is not above the first"),
)  # fmt: skip

# What stops training alone.
TRAINING_CONFLICTS = (
    Conflict("DATASETS.TRAIN", lambda names: not names,
             "name a labeled source data set, such as ('gta_train',)"),
    Conflict("DATASETS.TARGET PPPC.SELF_TRAINING.ENABLED", lambda names, on: on and not names,
             "name a target data set, such as ('cityscapes_train_unlabeled',), or train on the "
             "source alone with PPPC.SELF_TRAINING.ENABLED False and PPPC.CONTRAST.ENABLED False"),
)  # fmt: skip

# What training can go on with, though it is hardly what is meant.
DOUBTS = (
    Conflict("PPPC.CONTRAST.START_ITER SOLVER.MAX_ITER PPPC.CONTRAST.ENABLED",
             lambda start, end, on: on and start >= end, "the contrast never begins"),
    Conflict("SOLVER.WARMUP_ITERS SOLVER.MAX_ITER", lambda warmup, end: warmup > end,
             "the learning rate never reaches SOLVER.BASE_LR"),
    Conflict("INPUT.CROP.SIZE INPUT.MIN_SIZE_TRAIN INPUT.MAX_SIZE_TRAIN",
             lambda crop, low, high: 0 < max(low) < min(crop) or high < max(crop),
             "no resized source image fills the crop: the rest is ignored pixels"),
    Conflict("DATASETS.TRAIN DATASETS.TARGET", lambda source, target: set(source) & set(target),
             "source and target are the same images: there is nothing to adapt to"),
)  # fmt: skip


def flat(node: CfgNode, start: str = "") -> Iterator[tuple[str, object]]:
    """Every key with its sections, such as "SOLVER.MAX_ITER", and its value."""
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from flat(value, f"{start}{name}.")
        else:
            yield start + name, value


def _has_type_of(value: object, default: object) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    if isinstance(default, float):
        return _is_number(value)
    return default is None or type(value) is type(default)


def _listed(value: object) -> object:
    """``value`` with lists for tuples, as a written configuration has them inside of others."""
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def rules() -> dict[str, Rule]:
    """The rule of every key that has an effect, by key; of ``NAMES``, as they are now."""
    fixed = {key: rule for rule in RULES for key in rule.keys.split()}
    return fixed | {key: _one_of(tuple(names()), key) for key, names in NAMES.items()}


def wrong_values(cfg: CfgNode) -> list[str]:
    """A sentence for every key of ``cfg`` whose value is wrong by itself, or without effect."""
    defaults = get_cfg()
    add_pppc_config(defaults)
    values = dict(flat(cfg))
    by_key = rules()
    for key in DETECTRON2_HEADS.get(values.get("MODEL.SEM_SEG_HEAD.NAME"), ()):
        by_key[key] = Rule("a value of the default's type", lambda value: True, key)
    problems = []
    for key, default in flat(defaults):
        value, rule = values.get(key, default), by_key.get(key)
        if rule is None:
            if _listed(value) != _listed(default):
                problems.append(
                    f"{key} is {value!r}, but it has no effect in this project: leave it at {default!r}"
                )
        elif not _has_type_of(value, default) or not rule.holds(value):
            problems.append(f"{key} is {value!r}: give {rule.words}")
    return problems


def _conflicts(cfg: CfgNode, conflicts: tuple[Conflict, ...]) -> Iterator[str]:
    values = dict(flat(cfg))
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


def check_values(cfg: CfgNode) -> None:
    """See that every value of a configuration is one that its key can have, for whatever purpose.

    Raises:
        InputError: one is not, or some are not together; all of them are named.
    """
    problems = wrong_values(cfg) or [*_conflicts(cfg, CONFLICTS), *_unknown_static_classes(cfg)]
    if problems:
        raise InputError("; ".join(problems))


def check_config(cfg: CfgNode) -> None:
    """See, before any time is spent, that a configuration can be trained with.

    What it can be trained with, but is hardly meant, is logged as a warning.

    Raises:
        InputError: from :func:`check_values`, or it cannot.
    """
    check_values(cfg)
    if problems := list(_conflicts(cfg, TRAINING_CONFLICTS)):
        raise InputError("; ".join(problems))
    check_training_device(cfg)
    for doubt in _conflicts(cfg, DOUBTS):
        logger.warning(doubt)
