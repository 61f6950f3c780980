#!/usr/bin/env python3
"""Say which data sets are there, whole and consistent.

    tools/check_datasets.py                     every registered data set
    tools/check_datasets.py gta_train ...       these; the exit status is 1 where one isn't in order

Pairs of image and label are counted, their sizes compared, and class statistics matched with the
labels. --read-labels reads every label as well, and names those with foreign values. The data sets are
looked for in the environment variable DETECTRON2_DATASETS.
"""

import argparse
import sys

import pppc  # noqa: F401  (before Detectron2: it says what is missing)
from detectron2.data import DatasetCatalog
from pppc.data.catalog import dataset_metadata, statistics_file
from pppc.data.listing import datasets_root
from pppc.data.checks import label_problems, size_problems
from pppc.data.class_statistics import read_statistics
from pppc.data.splits import SPLITS
from tabulate import tabulate


def check(name: str, read_labels: bool) -> tuple[list[str], list[str]]:
    """The row of the table of one data set, and its problems."""
    split = SPLITS[name]
    whole = split.published_size or ""
    if not (datasets_root() / split.image_folder).is_dir():
        return [name, "", whole, "", "", "not there"], []
    try:
        records = DatasetCatalog.get(name)
    except (OSError, ValueError) as error:
        return [name, "?", whole, "", "", "incomplete"], [str(error).removeprefix(f"{name}: ")]
    labels = [record["sem_seg_file_name"] for record in records if "sem_seg_file_name" in record]
    problems = size_problems(records)
    statistics, path = "", statistics_file(name)
    if path is not None:
        statistics = "yes" if path.is_file() else "no"
        try:
            if path.is_file():
                read_statistics(path, labels)
        except ValueError as error:
            problems.append(str(error))
    if read_labels:
        problems += label_problems(labels, dataset_metadata(name).label_reader)
    state = "in order"
    if problems:
        state = f"{len(problems)} problems"
    elif whole and len(records) != whole:
        state = "in order, another number than the whole data set's"
    return [name, len(records), whole, len(labels), statistics, state], problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="data sets; default: all")
    parser.add_argument("--read-labels", action="store_true", help="read all labels, slow")
    arguments = parser.parse_args()
    try:
        for name in arguments.names:
            dataset_metadata(name)
    except KeyError as error:
        sys.exit(f"error: {error.args[0]}")
    rows, problems = [], []
    for name in arguments.names or SPLITS:
        row, found = check(name, arguments.read_labels)
        rows.append(row)
        problems += [f"{name}: {problem}" for problem in found]
        if arguments.names and row[-1] == "not there":
            folder = datasets_root() / SPLITS[name].image_folder
            problems.append(f"{name}: no folder {folder}. {SPLITS[name].hint}")
    headers = ["data set", "images", "of", "labels", "statistics", "state"]
    print(f"Below {datasets_root().resolve()}:\n")
    print(tabulate(rows, headers=headers))
    for problem in problems[:20]:
        print(f"error: {problem}", file=sys.stderr)
    if len(problems) > 20:
        print(f"error: and {len(problems) - 20} more", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
