"""Say which data sets are there, whole and consistent.

    %(prog)s                     every registered data set
    %(prog)s gta_train ...       these; the exit status is 1 where one isn't in order

Images and labels are paired, and their sizes compared.
--read decodes every image and label as well, as training does, and names each one that can't be read
or holds foreign values; what was found is kept, and the next time only changed files are read. The
data sets are looked for below the environment variable DETECTRON2_DATASETS, converted labels below
PPPC_CONVERTED first.
"""

import os
import sys

from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from ..arguments import ToolParser
from ..data.catalog import dataset_metadata, list_records, own_reader
from ..data.inspection import inspect_files
from ..data.listing import datasets_root, list_split
from ..data.outdated import outdated_labels
from ..errors import InputError, printable

SHOWN = 20  # problems


def registered_names() -> list[str]:
    """The data sets that were registered by register_split, the user's own included."""
    names = DatasetCatalog.list()
    return [name for name in names if MetadataCatalog.get(name).get("pppc_split") is not None]


def check(name: str, read: bool) -> tuple[list, list[str], list[str]]:
    """The row of the table of one data set, its problems, and remarks."""
    metadata = MetadataCatalog.get(name)
    split = metadata.get("pppc_split")
    whole = split.published_size or "" if split else ""
    try:
        if split is None:
            records = list_records(name)
            remarks = [
                "not registered by pppc.data.register_split: how many images it should have, which "
                "files it leaves out are not known here"
            ]
        else:
            listing = list_split(name, split)
            left_out = listing.describe_left_out()
            records, remarks = listing.records, [f"not taken: {left_out}"] if left_out else []
    except (InputError, OSError) as error:
        state = "incomplete"
        if split and not (datasets_root() / split.image_folder).is_dir():
            state = "not there"
        return [name, "", whole, "", state], [str(error).removeprefix(f"{name}: ")], []
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
    return [name, len(records), whole, len(labels), state], problems, remarks


def main() -> int:
    parser = ToolParser(__doc__)
    parser.add_argument("names", nargs="*", help="data sets; default: all")
    parser.add_argument(
        "--read", "--read-labels", action="store_true", help="decode every image and label, slow"
    )
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in DatasetCatalog.list():
            dataset_metadata(name)  # says which names are near
    rows, problems, remarks = [], [], []
    for name in arguments.names or registered_names():
        row, found, remarked = check(name, arguments.read)
        rows.append(row)
        remarks += [f"{name}: {remark}" for remark in remarked]
        if arguments.names or row[-1] != "not there":
            problems += [f"{name}: {problem}" for problem in found]
    print(printable(f"Below {datasets_root().resolve()}") + ":\n")
    if converted := os.getenv("PPPC_CONVERTED"):
        print(printable(f"Converted labels are looked for below {converted} first.") + "\n")
    print(tabulate(rows, headers=["data set", "images", "of", "labels", "state"]))
    for remark in remarks:
        print(printable(remark))
    for problem in problems[:SHOWN]:
        print(printable(f"error: {problem}"), file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"error: {len(problems)} problems, {SHOWN} of them above", file=sys.stderr)
    return 1 if problems else 0
