"""Converts a data set's labels to train ids and counts their classes, for tools/convert_datasets.

The counts are written as DAFormer and its successors read them:

- `sample_class_stats.json`: a list with one `{train id: pixels, ..., "file": path}` per label;
- `sample_class_stats_dict.json`: `{path: {train id: pixels, ...}}`;
- `samples_with_class.json`: `{train id: [[path, pixels], ...]}`.

Classes without a pixel are left out; paths are those of the train-id images. This project reads none
of them, as nothing in them tells whether they are older than the labels: it counts the labels, see
:mod:`pppc.data.inspection`.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ..arguments import ToolParser, whole_number
from ..errors import InputError
from ..files import user_path, write_atomically
from ..processes import map_in_processes
from .images import image_size, open_whole, turned
from .label_images import PNG_OPTIONS
from .labels import pixel_histogram
from .listing import IMAGE_ENDINGS, LABEL_ENDINGS
from .stamps import TRAIN_IDS_SUFFIX, pixel_hash, source_hash, stamp_of, stamped
from .train_ids import LabelSpace

STATISTICS = ("sample_class_stats.json", "sample_class_stats_dict.json", "samples_with_class.json")


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
    """Label ids (H, W) of an unsigned type to train ids (H, W) uint8; InputError names ``path``."""
    last = space.num_ids - 1
    strange = (ids > last) | ~space.known_ids()[np.minimum(ids, last)]
    if unknown := np.unique(ids[strange]).tolist():
        raise InputError(f"{path}: holds {unknown}, which are none of the data set's ids")
    return space.lookup_table()[ids]


def count_train_ids(train_ids: np.ndarray, space: LabelSpace) -> dict[int, int]:
    """The pixels of each train id that occurs; ignored ones are left out."""
    pixels = pixel_histogram(np.ascontiguousarray(train_ids))
    return {train_id: int(n) for train_id, n in enumerate(pixels[: len(space.class_names)]) if n}


def write_statistics(counts: Mapping[str, Mapping[int, int]], folder: str | os.PathLike) -> None:
    """Write the three files to a folder, from the pixels of each train ID by the path of the label."""
    samples_with_class: dict[int, list] = {}
    for path, pixels in counts.items():
        for train_id, number in pixels.items():
            samples_with_class.setdefault(train_id, []).append([path, number])
    os.makedirs(folder, exist_ok=True)
    contents = (
        [{**pixels, "file": path} for path, pixels in counts.items()],
        counts,
        dict(sorted(samples_with_class.items())),
    )
    for name, content in zip(STATISTICS, contents):
        write_atomically(os.path.join(folder, name), json.dumps(content, indent=2).encode())


def convert_label(
    label: LabelFile, read: Reader, space: LabelSpace, numbers_are_ids: bool = False
) -> dict[int, int]:
    """Write one train-id image, unless it is there, made from the same source, and unchanged.

    What it was made from is in the image, see :mod:`pppc.data.stamps`. Returned are the pixels of each train
    id.

    Raises:
        InputError: the label is unreadable, of another size than its image, or holds unknown ids.
        OSError: the output cannot be written.
    """
    try:
        source = Path(label.source).read_bytes()
    except OSError as error:
        raise InputError(f"{label.source}: can't be read ({error.strerror})") from error
    size = image_size(label.image) if os.path.exists(label.image) else None
    made_from = source_hash(source, space, numbers_are_ids)
    train_ids = _converted(label.output, made_from)
    if train_ids is None:
        train_ids = read(label.source)
        content = cv2.imencode(".png", train_ids, PNG_OPTIONS)[1].tobytes()
        os.makedirs(os.path.dirname(label.output), exist_ok=True)
    else:
        content = None
    if size not in (None, train_ids.shape):
        raise InputError(
            f"{label.source}: is {train_ids.shape[1]}x{train_ids.shape[0]}, its image {label.image} "
            f"is {size[1]}x{size[0]}: they must be of one size"
        )
    if content is not None:
        write_atomically(label.output, stamped(content, made_from, train_ids))
    return count_train_ids(train_ids, space)


def _converted(path: str, made_from: str) -> np.ndarray | None:
    """The train ids of an earlier run's output; None if it was made from something else, or changed."""
    if not os.path.exists(path):
        return None
    try:
        train_ids = np.asarray(open_whole(path)[1])
    except (InputError, OSError):
        return None
    return train_ids if stamp_of(path) == (made_from, pixel_hash(train_ids)) else None


def _convert_or_explain(label: LabelFile, read: Reader, space: LabelSpace, numbers_are_ids: bool):
    """The counts, or what is wrong with the label: a bad file is not to stop the others."""
    try:
        return label, convert_label(label, read, space, numbers_are_ids), None
    except InputError as error:
        return label, None, str(error)
    except OSError as error:
        return label, None, f"{label.source} can't be converted ({error})"


def convert_labels(
    labels: Sequence[LabelFile],
    read: Reader,
    space: LabelSpace,
    num_processes: int,
    numbers_are_ids: bool = False,
) -> tuple[dict[str, dict[int, int]], list[str]]:
    """Convert labels in parallel, with a progress bar.

    Returns:
        The class counts by output path, of the counted labels, and one line for each that could not be
        converted.
    """
    convert = partial(_convert_or_explain, read=read, space=space, numbers_are_ids=numbers_are_ids)
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
    """The labels of a folder, with images of the same names in another folder.

    How many other files there are is printed.

    Args:
        root, out: of the data set, and of the outputs.
        label_folder, image_folder: below ``root``.
        unusable: names to leave out, without their endings.

    Raises:
        InputError: there is no such folder, or no label in it, or two of one name.
    """
    folder = os.path.join(root, label_folder)
    names, hidden, others = [], [], []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        stem, ending = os.path.splitext(name)
        if name.startswith("."):
            hidden.append(name)
        elif ending.lower() not in LABEL_ENDINGS:
            others.append(name)
        elif not name.lower().endswith(TRAIN_IDS_SUFFIX.lower()) and stem not in unusable:
            names.append(name)
    for kind, left_out in (("hidden files", hidden), ("files that are no labels", others)):
        if left_out:
            print(
                f"{folder}: {len(left_out)} {kind} left out, such as {left_out[0]}", file=sys.stderr
            )
    if not names:
        raise InputError(
            f"no label image in {folder}: ROOT must hold {label_folder} and {image_folder} as unpacked"
        )
    images = images_by_stem(os.path.join(root, image_folder))
    return [
        LabelFile(
            source=os.path.join(folder, name),
            output=os.path.join(out, label_folder, stem + TRAIN_IDS_SUFFIX),
            image=images.get(stem, ""),
        )
        for stem, name in one_of_each(folder, names, lambda name: os.path.splitext(name)[0]).items()
    ]


def one_of_each(folder: str, names: Sequence[str], key: Callable[[str], str]) -> dict[str, str]:
    """The names of labels by what they are known by; InputError: several have the same."""
    by_key: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_key[key(name)].append(name)
    if several := [" and ".join(same) for same in by_key.values() if len(same) > 1]:
        raise InputError(
            f"{folder}: {len(several)} labels have more than one file, such as {several[0]}: keep one of "
            "each"
        )
    return {stem: name for stem, (name,) in by_key.items()}


def images_by_stem(folder: str) -> dict[str, str]:
    """The images of a folder, which may be missing, by their names without the endings."""
    return {
        os.path.splitext(entry.name)[0]: entry.path
        for entry in (sorted(os.scandir(folder), key=str) if os.path.isdir(folder) else ())
        if os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS and entry.name[0] != "."
    }


def main(
    description: str,
    list_labels: Callable[[str, str], list[LabelFile]],
    read: Reader,
    space: LabelSpace,
    read_numbers: Reader | None = None,
) -> int:
    """The command line that the converters share; returns the exit status.

    Args:
        description: for --help.
        list_labels: root and output root -> labels.
        read: a label.
        space: of its IDs.
        read_numbers: a label by its numbers, whatever its palette; None: there is no such choice.

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
    if read_numbers is not None:
        parser.add_argument(
            "--numbers-are-ids",
            action="store_true",
            help="the numbers stored in the labels are the IDs, whatever their palettes show",
        )
    arguments = parser.parse_args()
    by_number = read_numbers is not None and arguments.numbers_are_ids
    if read_numbers is not None and by_number:
        read = read_numbers
    root = user_path(arguments.root, "ROOT")
    out = root if arguments.out_dir is None else user_path(arguments.out_dir, "--out-dir")
    labels = list_labels(root, out)
    require_writable(labels[0].output)
    for name in STATISTICS:
        if os.path.isdir(file := os.path.join(out, name)):
            raise InputError(f"{file} is a folder, in the place of a file of statistics: remove it")
    counts, problems = convert_labels(labels, read, space, arguments.nproc, by_number)
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


def require_writable(output: str) -> None:
    """See that a file can be written; InputError: it can't."""
    folder = os.path.dirname(os.path.abspath(output))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(
            f"{folder} cannot be written to: give --out-dir DIR, a folder of your own for labels and "
            "statistics"
        )
