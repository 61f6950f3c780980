"""Settings that follow from images, labels and the machine, each with its reason.

What a recipe cannot know: how large images are, how their classes are spread, what the device holds and
how much time there is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

CPU_SIDE, GPU_SIDE = 512, 1024  # pixels to which a shortest side is reduced at most
CPU_CROP, GPU_CROP = 256, 512
STRIDE = 32  # of the encoders' coarsest features
MOST_ITERATIONS = 40_000  # the paper's
FEWEST_ITERATIONS = 20
HELD_OUT = 8  # of so many source images one is not trained on, but calibrated with
FEWEST_TO_HOLD_OUT = 40
SHARE_OF_TRAINING = 0.85  # of the time; the rest is for start, evaluation and pictures


class Setting(NamedTuple):
    """A configuration key, its value and why it has it."""

    key: str
    value: object
    reason: str


@dataclass(frozen=True)
class Machine:
    """What training runs on.

    Attributes:
        gpu_memory: of one GPU, bytes; 0: the CPU.
        cores: of the CPU.
        processes: that train, each on a GPU of its own.
    """

    gpu_memory: int
    cores: int
    processes: int = 1


def _multiple(number: float) -> int:
    """The largest multiple of the stride up to a number, at least one."""
    return max(STRIDE, int(number) // STRIDE * STRIDE)


def _most(number: int) -> int:
    """The index at which 95 % of so many sorted values are reached."""
    return math.ceil(0.95 * number) - 1


def size_settings(
    sizes: Mapping[str, Sequence[tuple[int, int]]], machine: Machine
) -> list[Setting]:
    """To what sides images are resized, and how large crops are.

    Args:
        sizes: (height, width) of images, pixels, by "source", "target" and, if there is one, "val".
        machine: that trains.

    Examples:
        >>> cpu = Machine(gpu_memory=0, cores=2)
        >>> for setting in size_settings({"source": [(600, 800)], "target": [(400, 700)]}, cpu):
        ...     print(setting.key, setting.value)
        INPUT.MIN_SIZE_TRAIN [384]
        INPUT.TARGET.MIN_SIZE 384
        INPUT.MIN_SIZE_TEST 384
        INPUT.MAX_SIZE_TRAIN 672
        INPUT.TARGET.MAX_SIZE 672
        INPUT.MAX_SIZE_TEST 672
        TEST.WINDOW 1200
        INPUT.CROP.SIZE [256, 256]
        PPPC.SELF_TRAINING.IGNORE_TOP 0
        PPPC.SELF_TRAINING.IGNORE_BOTTOM 0
    """
    shortest = {role: median(map(min, found)) for role, found in sizes.items()}
    limit, crop_limit = (GPU_SIDE, GPU_CROP) if machine.gpu_memory else (CPU_SIDE, CPU_CROP)
    device = "GPU" if machine.gpu_memory else "CPU"
    wanted = min(shortest["source"], shortest["target"], limit)
    side = _multiple(wanted)
    if wanted == limit:
        why = f"the most for a {device} (the images' shortest sides: {_listed(shortest)})"
    else:
        smaller = min(shortest, key=lambda role: shortest[role] if role != "val" else math.inf)
        why = f"the median shortest side of {smaller} images, {shortest[smaller]:g}, in steps of {STRIDE}"
    ratios = sorted(max(size) / min(size) for found in sizes.values() for size in found)
    ratio = min(4.0, ratios[_most(len(ratios))])
    window = sorted(max(size) for found in sizes.values() for size in found)[_most(len(ratios))]
    longest = STRIDE * math.ceil(round(side * ratio / STRIDE, 6))
    crop = min(side, crop_limit)
    why_longest = f"95 % of the images are at most {ratio:.2f} times as long as wide"
    return [
        Setting("INPUT.MIN_SIZE_TRAIN", [side], why),
        Setting("INPUT.TARGET.MIN_SIZE", side, "as the source's"),
        Setting("INPUT.MIN_SIZE_TEST", side, "as in training"),
        Setting("INPUT.MAX_SIZE_TRAIN", longest, why_longest),
        Setting("INPUT.TARGET.MAX_SIZE", longest, "as the source's"),
        Setting("INPUT.MAX_SIZE_TEST", longest, "as in training"),
        Setting(
            "TEST.WINDOW",
            max(STRIDE, window * 3 // 2),
            f"95 % of the images are at most {window} pixels long; much larger ones are predicted in windows",
        ),
        Setting(
            "INPUT.CROP.SIZE",
            [crop, crop],
            "the whole shortest side" if crop == side else f"the most for a {device}",
        ),
        Setting(
            "PPPC.SELF_TRAINING.IGNORE_TOP",
            0,
            "rows of the crop, which may lie anywhere in the image; what source labels ignore needs no key",
        ),
        Setting("PPPC.SELF_TRAINING.IGNORE_BOTTOM", 0, "likewise"),
    ]


def class_settings(shares: Mapping[str, float]) -> list[Setting]:
    """What depends on how frequent classes are.

    Args:
        shares: of the source's labeled pixels, by the class's name.

    Examples:
        >>> class_settings({"background": 0.92, "vessel": 0.08})[0][:2]
        ('INPUT.CROP.SINGLE_CATEGORY_MAX_AREA', 1.0)
        >>> class_settings({"road": 0.4, "sky": 0.6})
        []
    """
    most = max(shares, key=lambda name: shares[name])
    if shares[most] <= 0.6:
        return []
    reason = (
        f"{most} has {shares[most]:.0%} of the source's pixels, so crops full of it are the rule"
    )
    return [Setting("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 1.0, reason)]


def calibration_settings(number: int) -> list[Setting]:
    """What makes predictions tell the probability of error, of ``number`` source images.

    Examples:
        >>> [setting.value for setting in calibration_settings(100)]
        [8, 'source']
        >>> calibration_settings(20)
        []
    """
    if number < FEWEST_TO_HOLD_OUT:
        return []
    reason = "the probability of error of each pixel, fitted to the source images held out"
    return [
        Setting(
            "DATASETS.HELD_OUT", HELD_OUT, f"one of {HELD_OUT} source images is not trained on"
        ),
        Setting("TEST.CALIBRATION", "source", reason),
    ]


def batch_settings(machine: Machine) -> list[Setting]:
    """Images of a batch, precision and loader processes.

    Examples:
        >>> [setting.value for setting in batch_settings(Machine(gpu_memory=24 * 2**30, cores=8))]
        [4, 4, 4, True]
    """
    a_gpu = f"a GPU of {machine.gpu_memory / 2**30:.0f} GiB"
    images = 4 if machine.gpu_memory >= 16 * 2**30 else 2
    why = f"for {a_gpu}" if machine.gpu_memory else "for a CPU"
    images, each = (
        images * machine.processes,
        f", {machine.processes} of them" * (machine.processes > 1),
    )
    workers = min(4, machine.cores // (2 * machine.processes)) if machine.cores > 2 else 0
    settings = [
        Setting("SOLVER.IMS_PER_BATCH", images, why + each),
        Setting("SOLVER.TARGET_IMS_PER_BATCH", images, "as of the source"),
        Setting("DATALOADER.NUM_WORKERS", workers, f"there are {machine.cores} CPU cores"),
    ]
    if machine.gpu_memory:
        settings.append(Setting("SOLVER.AMP.ENABLED", True, "half precision, for time and memory"))
    return settings


def iterations(seconds: float, seconds_per_step: Sequence[float]) -> int:
    """How many iterations of each training fit into a time, all of the same number.

    Args:
        seconds: for all trainings, with start, evaluation and pictures.
        seconds_per_step: of each training, as measured.

    Examples:
        >>> iterations(3600, [1.0, 2.4])
        900
        >>> iterations(60, [1.0, 2.4])
        15
    """
    number = int(SHARE_OF_TRAINING * seconds / sum(seconds_per_step))
    step = 10 ** max(0, len(str(number)) - 2)  # two digits, as a person would choose it
    return min(MOST_ITERATIONS, number // step * step)


def schedule_settings(number: int, reason: str) -> list[Setting]:
    """The settings of a training of so many iterations.

    Examples:
        >>> [setting.value for setting in schedule_settings(900, "")]
        [900, 33, 180, 0, 0]
    """
    return [
        Setting("SOLVER.MAX_ITER", number, reason),
        Setting("SOLVER.WARMUP_ITERS", number * 1500 // 40_000, "1,500 of 40,000, in proportion"),
        Setting("SOLVER.CHECKPOINT_PERIOD", max(1, number // 5), "five of them, to go on from"),
        Setting("TEST.EVAL_PERIOD", 0, "at the end alone"),
        Setting("VIS_PERIOD", 0, "pictures come at the end"),
    ]


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number:g}" for name, number in numbers.items())
