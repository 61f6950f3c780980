"""Labels that are drawn from annotations, once each.

What was drawn is kept in the user's cache folder (below PPPC_CONVERTED, where that is set), never
beside the user's files, under names made from what it was drawn from: changed annotations are drawn
anew.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from ...errors import InputError
from ...files import user_path, write_atomically
from ..inspection import cache_folder, file_digests
from ..label_images import PNG_OPTIONS

VERSION = 1  # in the names of what is drawn; another one where drawing changes
VOID = 255
BACKGROUND = "background"  # what no annotation covers, where objects are annotated
CONVERT = "Convert it with Datumaro: datum convert -if FORMAT -f voc_segmentation"


class Drawing(NamedTuple):
    """How the label of one image is drawn.

    Attributes:
        draw: gives the numbers ``(H, W)`` uint8.
        files: that it is drawn from.
        rules: what else decides what is drawn.
    """

    draw: Callable[[], np.ndarray]
    files: tuple[str, ...]
    rules: str = ""


@dataclass(frozen=True)
class Annotations:
    """The annotations of a data set.

    Attributes:
        format: their name, for messages.
        classes: names by the number that is drawn.
        drawings: by the image's name in the annotations.
        colors: RGB, 0 to 255, by number, where they name some.
        void: numbers that mean nothing.
    """

    format: str
    classes: Mapping[int, str]
    drawings: Mapping[str, Drawing]
    colors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    void: frozenset[int] = frozenset({VOID})


def numbers_of(path: Path, ids: Iterable[int]) -> dict[int, int]:
    """What is drawn, by ID: the ID itself, or a number from 1 on where one does not fit into a byte."""
    ids = sorted(set(ids))
    if len(ids) > VOID - 1:
        raise InputError(f"{path}: has {len(ids)} classes, more than {VOID - 1}. {CONVERT}")
    fit = all(0 <= i < VOID for i in ids)
    return {i: i if fit else number for number, i in enumerate(ids, 1)}


def with_background(classes: dict[int, str]) -> tuple[dict[int, str], int]:
    """The classes, background among them, and its number."""
    for number, name in classes.items():
        if name.lower() == BACKGROUND:
            return classes, number
    number = 0 if 0 not in classes else max(classes) + 1
    return {number: BACKGROUND} | classes, number


def draw_labels(drawings: Mapping[str, Drawing]) -> dict[str, str]:
    """Draw the labels that are not drawn yet; where they are, by the keys of ``drawings``.

    Raises:
        InputError: annotations can't be drawn; the message names the file.
    """
    folder = cache_folder() / "labels"
    if root := os.getenv("PPPC_CONVERTED"):
        folder = Path(user_path(root, "the environment variable PPPC_CONVERTED"), "labels")
    content = file_digests(file for drawing in drawings.values() for file in drawing.files)
    paths = {}
    for key, drawing in drawings.items():
        made_from = repr((VERSION, key, drawing.rules, [content[file] for file in drawing.files]))
        digest = hashlib.blake2b(made_from.encode("utf-8", "surrogateescape"), digest_size=16)
        name = digest.hexdigest()
        paths[key] = str(folder / name[:2] / f"{name}.png")
    missing = [
        (drawings[key].draw, path) for key, path in paths.items() if not os.path.exists(path)
    ]
    with ThreadPoolExecutor() as pool:
        work = pool.map(_draw, missing)
        list(tqdm(work, total=len(missing), unit="label", desc=f"labels are drawn into {folder}",
                  disable=None if missing else True))  # fmt: skip
    return paths


def _draw(job: tuple[Callable[[], np.ndarray], str]) -> None:
    draw, path = job
    try:
        label = draw()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"annotations can't be drawn ({error!r})") from error
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_atomically(path, cv2.imencode(".png", label, PNG_OPTIONS)[1].tobytes())
