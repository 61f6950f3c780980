"""Converts a data set's labels to train ids and counts their classes, for tools/convert_datasets."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..files import write_atomically
from .class_statistics import write_statistics
from .labels import pixel_histogram
from .processes import map_in_processes
from .train_ids import LabelSpace

TRAIN_IDS_SUFFIX = "_labelTrainIds.png"

# Runs of equal bytes are all that there is to compress in a label image.
_PNG_OPTIONS = (
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
)  # fmt: skip


@dataclass(frozen=True)
class LabelFile:
    """A label to convert.

    Attributes:
        source: what to read.
        output: the train-id image to write.
        image: the image that it labels, whose size it must have where that file exists.
        counted: whether the statistics are to include it.
    """

    source: str
    output: str
    image: str
    counted: bool = True


Reader = Callable[[str], np.ndarray]  # a file's label ids (H, W); ValueError where it has none


def read_index_image(path: str) -> np.ndarray:
    """The label ids (H, W) uint8 of a palette image, as its indices, or of a gray one.

    Raises:
        ValueError: the image has another mode or cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ValueError(
                    f"has mode {image.mode}; label ids are stored as palette indices (P) or as "
                    "gray values (L): download it again"
                )
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"can't be read ({error})") from error


def read_synthia_image(path: str) -> np.ndarray:
    """The label ids (H, W) uint16 of a 16-bit RGB image, from its red channel.

    Raises:
        ValueError: the image has another format or cannot be read.
    """
    # Pillow reduces 16-bit colors to 8 bits, so that ids become 0; OpenCV keeps them, as BGR.
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("can't be read")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"is a {image.dtype} image of shape {image.shape}; SYNTHIA's labels are 16-bit RGB: "
            "download it again"
        )
    return image[..., 2]


def to_train_ids(ids: np.ndarray, space: LabelSpace) -> tuple[np.ndarray, dict[int, int]]:
    """Map label ids and count classes, both in one pass.

    Args:
        ids: (H, W) label ids of an unsigned type.
        space: what they mean.

    Returns:
        The train ids (H, W) uint8, and the pixels of each train id that occurs; ignored pixels
        are not counted.

    Raises:
        ValueError: an id is none of the data set's.
    """
    if ids.dtype != np.uint8:
        if ids.max() > 255:
            raise ValueError(f"holds {ids.max()}, which is none of the data set's ids")
        ids = ids.astype(np.uint8)
    ids = np.ascontiguousarray(ids)
    pixels = pixel_histogram(ids)
    unknown = np.flatnonzero((pixels > 0) & ~space.known_ids())
    if unknown.size:
        raise ValueError(f"holds {unknown.tolist()}, which are none of the data set's ids")
    counts = {
        train_id: int(pixels[label_id])
        for label_id, train_id in space.id_to_train_id.items()
        if pixels[label_id]
    }
    return cv2.LUT(ids, space.lookup_table()), counts


def convert_label(label: LabelFile, read: Reader, space: LabelSpace) -> dict[int, int]:
    """Write one train-id image, unless a whole one is there that is newer than its source.

    Returns:
        The pixels of each train id that occurs.

    Raises:
        ValueError: the label is unreadable, of another size than its image, or holds unknown ids.
    """
    if _is_older(label.source, label.output):
        counts = _count_converted(label, space)
        if counts is not None:
            return counts
    ids = read(label.source)
    size = _image_size(label.image)
    if size is not None and size != ids.shape[::-1]:
        raise ValueError(
            f"is {ids.shape[1]}x{ids.shape[0]}, its image {label.image} is {size[0]}x{size[1]}"
        )
    train_ids, counts = to_train_ids(ids, space)
    ok, encoded = cv2.imencode(".png", train_ids, _PNG_OPTIONS)
    assert ok
    write_atomically(label.output, encoded.tobytes())
    return counts


def _is_older(source: str, output: str) -> bool:
    return os.path.exists(output) and os.path.getmtime(source) <= os.path.getmtime(output)


def _image_size(path: str) -> tuple[int, int] | None:
    """(width, height), or None where there is no such file."""
    if not os.path.exists(path):
        return None
    try:
        with Image.open(path) as image:
            return image.size
    except OSError as error:
        raise ValueError(f"belongs to {path}, which can't be read ({error})") from error


def _count_converted(label: LabelFile, space: LabelSpace) -> dict[int, int] | None:
    """The classes in an earlier run's train-id image; None if that is not a whole, fitting one."""
    try:
        train_ids = read_index_image(label.output)
    except ValueError:
        return None
    if _image_size(label.image) not in (None, train_ids.shape[::-1]):
        return None
    pixels = pixel_histogram(np.ascontiguousarray(train_ids))
    num_classes = len(space.class_names)
    if pixels.sum() != pixels[:num_classes].sum() + pixels[space.ignore_label]:
        return None
    return {train_id: int(n) for train_id, n in enumerate(pixels[:num_classes]) if n}


def _convert_or_explain(label: LabelFile, read: Reader, space: LabelSpace):
    """The counts, or what is wrong with the label: a bad file is not to stop the others."""
    try:
        return label, convert_label(label, read, space), None
    except ValueError as error:
        return label, None, f"{label.source} {error}"
    except OSError as error:
        return label, None, f"{label.source} can't be converted ({error})"


def convert_labels(
    labels: Sequence[LabelFile], read: Reader, space: LabelSpace, num_processes: int
) -> tuple[dict[str, dict[int, int]], list[str]]:
    """Convert labels in parallel, with a progress bar.

    Returns:
        The class counts by output path, of those labels that are counted and were converted, and
        one line for each label that could not be.
    """
    convert = partial(_convert_or_explain, read=read, space=space)
    counts, problems = {}, []
    results = map_in_processes(convert, labels, num_processes)
    for label, pixels, problem in tqdm(results, total=len(labels), unit="label"):
        if problem is not None:
            problems.append(problem)
        elif label.counted:
            counts[label.output] = pixels
    return counts, problems


def list_label_images(
    root: str, label_folder: str, image_folder: str, unusable: Collection[str] = ()
) -> list[LabelFile]:
    """The PNGs of a folder of labels, with images of the same names in another folder.

    Args:
        root: of the data set.
        label_folder, image_folder: below it.
        unusable: names to leave out, without their ends.

    Raises:
        FileNotFoundError: there is no such folder, or no label in it.
    """
    folder = os.path.join(root, label_folder)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    names = [n for n in names if n.endswith(".png") and not n.endswith(TRAIN_IDS_SUFFIX)]
    if not names:
        raise FileNotFoundError(
            f"no PNG in {folder}: ROOT must hold {label_folder} and {image_folder} as unpacked"
        )
    return [
        LabelFile(
            source=os.path.join(folder, name),
            output=os.path.join(folder, name.removesuffix(".png") + TRAIN_IDS_SUFFIX),
            image=os.path.join(root, image_folder, name),
        )
        for name in names
        if name.removesuffix(".png") not in unusable
    ]


def main(
    description: str,
    list_labels: Callable[[str], list[LabelFile]],
    read: Reader,
    space: LabelSpace,
) -> int:
    """The command line that the converters share; returns the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("root", metavar="ROOT", help="the data set's folder")
    parser.add_argument("--nproc", type=int, default=os.cpu_count(), help="processes, default all")
    parser.add_argument("--out-dir", metavar="DIR", help="where statistics go, default ROOT")
    arguments = parser.parse_args()
    try:
        labels = list_labels(arguments.root)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts, problems = convert_labels(labels, read, space, arguments.nproc)
    if counts:
        write_statistics(counts, arguments.out_dir or arguments.root)
    print(f"{len(labels) - len(problems)} of {len(labels)} labels converted")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0
