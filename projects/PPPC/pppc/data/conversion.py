"""Converts a data set's labels to train ids and counts their classes, for tools/convert_datasets."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..arguments import ToolParser, whole_number
from ..errors import InputError
from ..files import user_path, write_atomically
from .class_statistics import STATISTICS, write_statistics
from .images import image_size, open_whole, turned
from .labels import pixel_histogram
from .processes import map_in_processes
from .train_ids import LabelSpace

TRAIN_IDS_SUFFIX = "_labelTrainIds.png"
# In the hash of what an output was made from; another one where converting changes.
VERSION = 1

# Runs of equal bytes are all that there is to compress in a label image.
_PNG_OPTIONS = (
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
)  # fmt: skip
_PNG_HEADER = 33  # bytes of the signature and the first part
_MADE_FROM = "pppc:made-from"  # key of the text in an output


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


Reader = Callable[[str], np.ndarray]  # a file's train ids (H, W); InputError where it has none


def read_synthia_image(path: str, space: LabelSpace) -> np.ndarray:
    """The train ids (H, W) uint8 of a 16-bit RGB image, whose red channel holds SYNTHIA's ids.

    Raises:
        InputError: the image has another format, can't be read, or holds unknown ids.
    """
    content, _, orientation = open_whole(path)
    # Pillow reduces 16-bit colors to 8 bits, so that ids become 0; OpenCV keeps them, as BGR.
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"{path}: not a whole image: get it again")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"{path}: a {image.dtype} image of shape {image.shape}; SYNTHIA's labels are 16-bit RGB: "
            "download it again"
        )
    return to_train_ids(path, turned(image[..., 2], orientation), space)


def to_train_ids(path: str, ids: np.ndarray, space: LabelSpace) -> np.ndarray:
    """Map label ids.

    Args:
        path: of the file that they are from, for the message.
        ids: (H, W) label ids of an unsigned type.
        space: what they mean.

    Returns:
        The train ids (H, W) uint8.

    Raises:
        InputError: an id is none of the data set's.
    """
    known = space.known_ids()
    if unknown := sorted(set(np.unique(ids[(ids > 255) | ~known[ids & 255]]).tolist())):
        raise InputError(f"{path}: holds {unknown}, which are none of the data set's ids")
    return cv2.LUT(np.ascontiguousarray(ids, np.uint8), space.lookup_table())


def count_train_ids(train_ids: np.ndarray, space: LabelSpace) -> dict[int, int]:
    """The pixels of each train id that occurs; ignored ones are left out."""
    pixels = pixel_histogram(np.ascontiguousarray(train_ids))
    return {train_id: int(n) for train_id, n in enumerate(pixels[: len(space.class_names)]) if n}


def convert_label(label: LabelFile, read: Reader, space: LabelSpace) -> dict[int, int]:
    """Write one train-id image, unless it is there, made from the same source, and unchanged.

    What it was made from is in the image, as hashes: dates tell nothing of copied and unpacked files.

    Returns:
        The pixels of each train id that occurs.

    Raises:
        InputError: the label is unreadable, of another size than its image, or holds unknown ids.
        OSError: the output cannot be written.
    """
    try:
        source = Path(label.source).read_bytes()
    except OSError as error:
        raise InputError(f"{label.source}: can't be read ({error.strerror})") from error
    size = image_size(label.image) if os.path.exists(label.image) else None
    made_from = _hash(source, repr((VERSION, space)).encode())
    train_ids = _converted(label.output, made_from)
    if train_ids is None:
        train_ids = read(label.source)
        content = cv2.imencode(".png", train_ids, _PNG_OPTIONS)[1].tobytes()
        record = f"{made_from} {_hash(train_ids.tobytes())}"
        os.makedirs(os.path.dirname(label.output), exist_ok=True)
    else:
        content = None
    if size not in (None, train_ids.shape):
        raise InputError(
            f"{label.source}: is {train_ids.shape[1]}x{train_ids.shape[0]}, its image {label.image} "
            f"is {size[1]}x{size[0]}: they must be of one size"
        )
    if content is not None:
        write_atomically(label.output, _with_text(content, _MADE_FROM, record))
    return count_train_ids(train_ids, space)


def _hash(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _converted(path: str, made_from: str) -> np.ndarray | None:
    """The train ids of an earlier run's output; None if it was made from something else, or changed."""
    if not os.path.exists(path):
        return None
    try:
        _, image, _ = open_whole(path)
        source, _, pixels = image.info.get(_MADE_FROM, "").partition(" ")
        train_ids = np.asarray(image)
    except (InputError, OSError):
        return None
    return train_ids if (source, pixels) == (made_from, _hash(train_ids.tobytes())) else None


def is_outdated(output: str, sources: Sequence[str], space: LabelSpace) -> bool:
    """Whether a converted label was made from something else than what is there now.

    Args:
        output: the train-id image. Of one that this project has not converted, nothing is known.
        sources: the files that it may have been made from.
        space: of their ids.
    """
    made_from = open_whole(output)[1].info.get(_MADE_FROM, "").partition(" ")[0]
    there = [source for source in sources if os.path.exists(source)]
    rules = repr((VERSION, space)).encode()
    return bool(
        made_from
        and there
        and all(_hash(Path(source).read_bytes(), rules) != made_from for source in there)
    )


def _with_text(png: bytes, key: str, text: str) -> bytes:
    """A PNG with a text in it, which OpenCV cannot write."""
    part = b"tEXt" + key.encode() + b"\0" + text.encode()
    size, checksum = (len(part) - 4).to_bytes(4, "big"), zlib.crc32(part).to_bytes(4, "big")
    return png[:_PNG_HEADER] + size + part + checksum + png[_PNG_HEADER:]


def _convert_or_explain(label: LabelFile, read: Reader, space: LabelSpace):
    """The counts, or what is wrong with the label: a bad file is not to stop the others."""
    try:
        return label, convert_label(label, read, space), None
    except InputError as error:
        return label, None, str(error)
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
    root: str, out: str, label_folder: str, image_folder: str, unusable: Collection[str] = ()
) -> list[LabelFile]:
    """The PNGs of a folder of labels, with images of the same names in another folder.

    How many other files there are is printed.

    Args:
        root: of the data set.
        out: root of the outputs.
        label_folder, image_folder: below it.
        unusable: names to leave out, without their ends.

    Raises:
        InputError: there is no such folder, or no label in it.
    """
    folder = os.path.join(root, label_folder)
    names, hidden, others = [], [], []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.startswith("."):
            hidden.append(name)
        elif not name.lower().endswith(".png"):
            others.append(name)
        elif (
            not name.lower().endswith(TRAIN_IDS_SUFFIX.lower())
            and name[: -len(".png")] not in unusable
        ):
            names.append(name)
    for kind, left_out in (("hidden files", hidden), ("files that are no PNG", others)):
        if left_out:
            print(
                f"{folder}: {len(left_out)} {kind} left out, such as {left_out[0]}", file=sys.stderr
            )
    if not names:
        raise InputError(
            f"no PNG in {folder}: ROOT must hold {label_folder} and {image_folder} as unpacked"
        )
    by_stem = Counter(name[: -len(".png")] for name in names)
    if several := [stem for stem, number in by_stem.items() if number > 1]:
        raise InputError(
            f"{folder}: {len(several)} labels are there with .png in two spellings, such as "
            f"{several[0]}: keep one of each"
        )
    return [
        LabelFile(
            source=os.path.join(folder, name),
            output=os.path.join(out, label_folder, name[: -len(".png")] + TRAIN_IDS_SUFFIX),
            image=os.path.join(root, image_folder, name),
        )
        for name in names
    ]


def main(
    description: str,
    list_labels: Callable[[str, str], list[LabelFile]],
    read: Reader,
    space: LabelSpace,
) -> int:
    """The command line that the converters share; returns the exit status.

    Raises:
        InputError: there are no labels, or the outputs cannot be written.
    """
    parser = ToolParser(description)
    parser.add_argument("root", metavar="ROOT", help="the data set's folder")
    parser.add_argument(
        "--nproc", type=whole_number(1), default=os.cpu_count(), help="processes (all cores)"
    )
    parser.add_argument(
        "--out-dir",
        metavar="DIR",
        help="where labels and statistics go, as below ROOT, the default",
    )
    arguments = parser.parse_args()
    root = user_path(arguments.root, "ROOT")
    out = root if arguments.out_dir is None else user_path(arguments.out_dir, "--out-dir")
    labels = list_labels(root, out)
    check_writable(labels[0].output)
    for name in STATISTICS:
        if os.path.isdir(file := os.path.join(out, name)):
            raise InputError(f"{file} is a folder, in the place of a file of statistics: remove it")
    counts, problems = convert_labels(labels, read, space, arguments.nproc)
    if counts:
        write_statistics(counts, out)
    print(f"{len(labels) - len(problems)} of {len(labels)} labels converted")
    if out != root:
        above, name = os.path.split(os.path.abspath(out))
        of_root = os.path.basename(os.path.abspath(root))
        print(
            "Training finds them where the environment variable PPPC_CONVERTED is the folder above: "
            f"PPPC_CONVERTED={above}"
            if name == of_root
            else f"Training will not find them: it looks for a folder of ROOT's name. Rename {out} to "
            f"{of_root}"
        )
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def check_writable(output: str) -> None:
    """See that a file can be written.

    Raises:
        InputError: it can't.
    """
    folder = os.path.dirname(os.path.abspath(output))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder} cannot be written to: give --out-dir DIR, a folder of your own for labels and "
            "statistics"
        )
