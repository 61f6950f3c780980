"""Say which data sets are there, whole and consistent.

    %(prog)s                     every registered data set
    %(prog)s gta_train ...       these; the exit status is 1 where one isn't in order
    %(prog)s mine.yaml           those of a data file; every file is decoded, and a figure of the classes
                                 and a sheet of images with their labels are drawn

Images and labels are paired, and their sizes compared.
--read decodes every image and label as well, as training does, and names each one that can't be read
or holds foreign values; what was found is kept, and the next time only changed files are read. The
data sets are looked for below the environment variable DETECTRON2_DATASETS, converted labels below
PPPC_CONVERTED first.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from ..adaptation.domains import COLORS, color_statistics
from ..arguments import ToolParser
from ..data.catalog import dataset_metadata, list_records, own_reader
from ..data.data_file import DataFile, register_data_file
from ..data.data_file.overview import class_shares, draw_class_shares, save_contact_sheet
from ..data.images import read_image
from ..data.inspection import Inspection, file_digests, inspect_files
from ..data.listing import datasets_root
from ..data.outdated import outdated_labels
from ..errors import InputError, printable
from ..files import user_path

SHOWN = 20  # problems
RARE = 0.001  # share of the labeled pixels
COLORED = 30  # images of each domain whose colors are looked at, at least


def registered_names() -> list[str]:
    """The data sets that were registered by register_split, the user's own included."""
    names = DatasetCatalog.list()
    return [name for name in names if MetadataCatalog.get(name).get("pppc_split") is not None]


def check(name: str, read: bool) -> tuple[list, list[str], list[str], Inspection]:
    """The row of the table of one data set, its problems, remarks, and what was found in its files."""
    metadata = MetadataCatalog.get(name)
    split, list_files = metadata.get("pppc_split"), metadata.get("list_files")
    whole = split.published_size or "" if split else ""
    try:
        if list_files is None:
            records = list_records(name)
            remarks = [
                "not registered by pppc.data.register_split: how many images it should have, which "
                "files it leaves out are not known here"
            ]
        else:
            listing = list_files()
            left_out = listing.describe_left_out()
            records, remarks = listing.records, [f"not taken: {left_out}"] if left_out else []
    except (InputError, OSError) as error:
        state = "incomplete"
        if split and not (datasets_root() / split.image_folder).is_dir():
            state = "not there"
        problem = str(error).removeprefix(f"{name}: ")
        return [name, "", whole, "", "", state], [problem], [], Inspection()
    labels = [record["sem_seg_file_name"] for record in records if "sem_seg_file_name" in record]
    reader = own_reader(name) if labels and metadata.get("stuff_classes") else None
    if labels and reader is None:
        remarks.append("nothing names its classes: values of labels are not looked at")
    nothing = None if read else ()
    found = inspect_files(records, reader, nothing, nothing, progress=read)
    problems = found.problems
    if split:
        problems += outdated_labels(split, found.stamps)
    if read and found.labels:
        pixels = found.class_pixels
        missing = [class_name for class_name in reader.class_names if class_name not in pixels]
        if len(missing) == len(reader.class_names):
            problems.append("every pixel of every label is ignored")
        elif missing:
            remarks.append(f"no label shows {', '.join(missing)}")
    state = "in order"
    if problems:
        state = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    elif whole and len(records) != whole:
        state = "in order, another number than the whole data set's"
    row = [name, len(records), whole, len(labels), _sizes(found), state]
    return row, problems, remarks, found


def _sizes(found: Inspection) -> str:
    """The smallest and the largest width and height of the images, pixels."""
    sizes = [(width, height) for height, width in found.images.values()]
    if not sizes:
        return ""
    low, high = (f"{f(w for w, _ in sizes)}x{f(h for _, h in sizes)}" for f in (min, max))
    return low if low == high else f"{low} to {high}"


def check_data_file(
    data: DataFile, found: Mapping[str, Inspection], folder: Path
) -> tuple[list[str], str]:
    """Draw a figure of the classes and a sheet of images, and see whether one image is in several places.

    Args:
        data: the data file.
        found: in its data sets.
        folder: to draw in.

    Returns:
        What is wrong, and what to mend first if nothing is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = data.classes
    shares = {n: class_shares(found[n].class_pixels, classes) for n in (*data.source, *data.val)}
    figure = draw_class_shares(shares, classes, "share of the labeled pixels, %")
    figure.savefig(folder / "classes.png")
    unreadable = {file for one in found.values() for file in one.unreadable}
    save_contact_sheet(folder / "images.png", [n for n in found if found[n].images], unreadable)
    files = {n: [file for file in found[n].images if file not in unreadable] for n in found}
    content = file_digests(file for several in files.values() for file in several)
    problems = []
    for name in data.val:
        for other in (*data.source, *data.target):
            same = {content[file]: file for file in files[other]}
            if both := [file for file in files[name] if content[file] in same]:
                problems.append(
                    f"{name}: {len(both)} images are images of {other}, too, under other names ({both[0]} is "
                    f"{same[content[both[0]]]}): figures on images that were trained on tell nothing"
                )
    source = np.mean([shares[name] for name in data.source], axis=0)
    if missing := [name for name, share in zip(classes, source) if not share]:
        return (
            problems,
            f"no source label shows {', '.join(missing)}: label some, or leave them out of names",
        )
    if source.min() < RARE:
        return problems, (
            f"{classes[source.argmin()]} covers {100 * source.min():.2g} % of the source's labeled pixels: "
            "images that show more of it would help most"
        )
    if not data.val:
        return (
            problems,
            "there is no val: a few labeled images of the target tell whether adapting helps",
        )
    return problems, "nothing"


def describe_colors(data: DataFile, found: Mapping[str, Inspection]) -> str:
    """The mean colors of some of the source's and the target's images."""
    parts = []
    for role, names in (("source", data.source), ("target", data.target)):
        files = [f for n in names for f in found[n].images if f not in found[n].unreadable]
        some = files[:: max(1, len(files) // COLORED)]
        means = (
            np.mean([color_statistics(read_image(f, "RGB")) for f in some], axis=0) if some else ()
        )
        parts += [f"{role} {n} {value:.0f} %" for n, value in zip(COLORS, means)]
    return f"{', '.join(parts)}. `pppc compare {shlex.quote(str(data.path))}` says how far apart they are"


def main() -> int:
    parser = ToolParser(__doc__)
    parser.add_argument("names", nargs="*", help="data sets, or a data file (.yaml); default: all")
    parser.add_argument(
        "--read", "--read-labels", action="store_true", help="decode every image and label, slow"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="for the pictures of a data file (output/check_NAME)"
    )
    arguments = parser.parse_args()
    names: list[str] = []
    data_files = []
    for name in arguments.names:
        if name.endswith((".yaml", ".yml")):
            data = register_data_file(name)
            data_files.append(data)
            names += (*data.source, *data.target, *data.val)
            continue
        if name not in DatasetCatalog.list():
            dataset_metadata(name)  # says which names are near
        names.append(name)
    rows, problems, remarks, found = [], [], [], {}
    for name in names or registered_names():
        of_file = any(name in (*d.source, *d.target, *d.val) for d in data_files)
        row, wrong, remarked, found[name] = check(name, arguments.read or of_file)
        rows.append(row)
        remarks += [f"{name}: {remark}" for remark in remarked]
        if names or row[-1] != "not there":
            problems += [f"{name}: {problem}" for problem in wrong]
    hints = []
    for data in data_files:
        own = {name: found[name] for name in (*data.source, *data.target, *data.val)}
        folder = Path(user_path(arguments.output or f"output/check_{data.path.stem}", "--output"))
        wrong, hint = check_data_file(data, own, folder)
        problems += wrong
        hints += [describe_colors(data, own)] if data.target else []
        hints.append(f"{folder}: classes.png and images.png, to look at. To mend first: {{}}".format(
            problems[0] if problems else hint))  # fmt: skip
    if len(data_files) < len(arguments.names) or not arguments.names:
        print(printable(f"Below {datasets_root().resolve()}") + ":\n")
    if converted := os.getenv("PPPC_CONVERTED"):
        print(printable(f"Converted labels are looked for below {converted} first.") + "\n")
    print(tabulate(rows, headers=["data set", "images", "of", "labels", "size", "state"]))
    for remark in (*remarks, *hints):
        print(printable(remark))
    for problem in problems[:SHOWN]:
        print(printable(f"error: {problem}"), file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"error: {len(problems)} problems, {SHOWN} of them above", file=sys.stderr)
    return 1 if problems else 0
