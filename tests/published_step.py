"""The numbers of the golden training step: by rules that the authors' code and ours follow alike, so
that nothing large is stored. Names are the authors'. Needs NumPy alone.
"""

import math
import zlib

import numpy as np

NUM_CLASSES, DIM = 19, 512
CROP, TARGET = (64, 64), (96, 128)  # height and width
IGNORED_ROWS = (2, 12)  # the published 15 and 120 of 640, of experiment 1
START = 2999  # the last iteration before the contrast begins
STEPS = 2


def draws(seed: int = 7) -> np.random.RandomState:
    """Of the corners of the crops and of the classes that are pasted."""
    return np.random.RandomState(seed)


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers of this name."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of the student: a random but not degenerate state of every layer."""
    values = numbers(name, shape)
    if name.endswith("running_var"):
        return 0.5 + values**2 / 2
    if name.endswith("uncertain_head.gamma"):
        return np.full(shape, 1.25)
    if len(shape) > 1:
        scale = math.sqrt(2 / math.prod(shape[1:]))
        return values * scale * (12 if "conv_seg" in name else 1)  # so that some pixels are sure
    return 1 + 0.2 * values if name.endswith("weight") else 0.1 * values


def teacher_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return weight(name, shape) * (1 + 0.02 * numbers(f"teacher {name}", shape))


def prototypes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means ``(C, D)`` and variances ``(C, D)``, and of each class how often it was updated."""
    mean = np.abs(numbers("prototypes", (NUM_CLASSES, DIM))) / math.sqrt(DIM)
    of_class = 0.03 * (1 + 0.5 * numbers("variances", (NUM_CLASSES, 1)))
    return mean, np.abs(of_class) + 0.001, np.full(NUM_CLASSES, 500)


def images(name: str, size: tuple[int, int], cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images ``(2, 3, H, W)`` uint8 of squares of a class's color each, and their labels."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    cells = [-(-side // cell) for side in size]
    label = random.randint(NUM_CLASSES, size=(2, *cells))
    label = label.repeat(cell, 1).repeat(cell, 2)[:, : size[0], : size[1]]
    colors = random.randint(256, size=(NUM_CLASSES, 3))[label].transpose(0, 3, 1, 2)
    noise = 25 * random.standard_normal(colors.shape)
    ignored = random.uniform(size=label.shape) < 0.02
    return np.clip(colors + noise, 0, 255).astype(np.uint8), np.where(ignored, 255, label)


def batch(step: int) -> dict[str, np.ndarray]:
    """Source with labels, target by night and by day, of one step."""
    source, label = images(f"source {step}", CROP, 12)
    target, _ = images(f"target {step}", TARGET, 20)
    day = (0.6 * target + 80).astype(np.uint8)
    return {"source": source, "label": label, "target": target, "day": day}


def summary(name: str, values: np.ndarray) -> tuple[float, float]:
    """Norm, and product with a vector of this name: what no change of ``values`` leaves alone."""
    return float(np.linalg.norm(values)), float(
        (values * numbers(f"product {name}", values.shape)).sum()
    )
