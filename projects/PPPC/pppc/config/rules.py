"""What a key is: its name, its default, what its value must be, and what it means."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

THEIRS = object()  # the default of a key of Detectron2's that is used as it is there


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Attributes:
        words: the same in words, after "give".
        holds: of a value that has the default's type.
    """

    words: str
    holds: Callable[[object], bool] = lambda value: True


class OneOf(Rule):
    """One of some names. They are asked for when they are needed, as users can add some."""

    def __init__(self, names: Iterable[str] | Callable[[], Iterable[str]]):
        object.__setattr__(self, "_names", names)

    @property
    def words(self) -> str:
        return f"one of {', '.join(map(repr, self._all()))}"

    def holds(self, value: object) -> bool:
        return value in self._all()

    def _all(self) -> list[str]:
        return list(self._names() if callable(self._names) else self._names)


class Key(NamedTuple):
    """A key that has an effect here.

    Attributes:
        name: with its sections, such as "SOLVER.MAX_ITER".
        default: ``THEIRS`` for Detectron2's own.
        rule: what its value must be.
        meaning: for the reference (docs/configuration.md).
    """

    name: str
    default: object
    rule: Rule
    meaning: str


def is_number(value: object, types: type | tuple[type, ...] = (int, float)) -> bool:
    """Whether a value is a finite number, which True is not."""
    return isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)


def whole(low: int, high: int | None = None) -> Rule:
    """A whole number from ``low`` on, or to ``high``."""
    if high is None:
        return Rule(f"a whole number, {low} or more", lambda value: value >= low)
    return Rule(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def number(low: float, high: float) -> Rule:
    """A number from ``low`` to ``high``."""
    return Rule(f"a number from {low:g} to {high:g}", lambda value: low <= value <= high)


def or_scaled(rule: Rule) -> Rule:
    """Also -1, for the published value at this size (:mod:`pppc.config.scaling`)."""
    return Rule(
        f"{rule.words}, or -1 for the published one, scaled",
        lambda value: value == -1 or rule.holds(value),
    )


def _numbers(low: float = -math.inf, count: int | None = None, types=(int, float)):
    """A condition: a list of numbers from ``low`` on."""
    return lambda values: (
        (len(values) == count if count else len(values) > 0)
        and all(is_number(v, types) and v >= low for v in values)
    )


def _are_names(values: list) -> bool:
    return all(isinstance(v, str) and v for v in values) and len(set(values)) == len(values)


SWITCH = Rule("True or False")
TEXT = Rule("text")
NAME = Rule("a name", bool)
ABOVE_0 = Rule("a number above 0", lambda value: value > 0)
NOT_BELOW_0 = Rule("a number, 0 or more", lambda value: value >= 0)
NOT_ABOVE_0 = Rule("a number, 0 or less", lambda value: value <= 0)
SHARE = number(0, 1)
BELOW_1 = Rule("a number from 0 to below 1", lambda value: 0 <= value < 1)
PART = Rule("a number above 0, at most 1", lambda value: 0 < value <= 1)
OPTIONAL = Rule(
    "None, or a number, 0 or more", lambda value: value is None or is_number(value) and value >= 0
)
TWO_BELOW_1 = Rule(
    "two numbers from 0 to below 1, such as (0.9, 0.999)",
    lambda values: _numbers(0, 2)(values) and max(values) < 1,
)
SIZE = Rule(
    "height and width, two whole numbers, 1 or more, such as [640, 640]", _numbers(1, 2, int)
)
MEANS = Rule("three numbers, one for each channel, 0 or more", _numbers(0, 3))
DEVIATIONS = Rule(
    "three numbers, one for each channel, above 0",
    lambda values: _numbers(0, 3)(values) and min(values) > 0,
)
SIDES = Rule("a list of one whole number or more, such as (720,)", _numbers(0, types=int))
COUNTS = Rule(
    "a list of one whole number or more, 1 or more each, such as [48]", _numbers(1, types=int)
)
RISING = Rule(
    "a list of rising whole numbers, such as (30000,)",
    lambda values: _numbers(1, types=int)([1, *values]) and sorted(set(values)) == list(values),
)
INTENSITIES = Rule(
    "(), or two rising numbers, 0 or more, such as (0, 4095)",
    lambda values: not values or _numbers(0, 2)(values) and values[0] < values[1],
)
FREQUENCIES = Rule(
    "a list of numbers, 0 or more, one of each class",
    lambda values: not values or _numbers(0)(values) and max(values) > 0,
)
WEIGHTS = Rule(
    "(), or a list of numbers above 0, one of each data set, such as (1, 0.5)",
    lambda values: not values or _numbers(0)(values) and min(values) > 0,
)
DATASETS = Rule("a list of different names, such as ('cityscapes_val',)", _are_names)
NAMES = Rule("a list of different names", _are_names)
STAGES = Rule(
    "a list of one name or more, all different, such as ['stage1', 'stage4']",
    lambda values: len(values) > 0 and _are_names(values),
)
DEVICE = Rule(
    "'cpu', 'cuda' or 'cuda:NUMBER'", lambda value: bool(re.fullmatch(r"cpu|cuda(:\d+)?", value))
)
