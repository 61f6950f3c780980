#!/usr/bin/env python3
"""Make the demo data: streets in the formats of GTA V, SYNTHIA, Cityscapes and Dark Zurich."""

import argparse
import os
import re
from dataclasses import fields

from demo_data.datasets import DemoData, make_demo_data
from pppc.arguments import ToolParser, whole_number
from pppc.errors import run_tool
from pppc.files import user_path

SMALLEST, LARGEST = 16, 8192  # pixels of a side: less shows nothing, more fills the memory


def width_x_height(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    size = (int(found[1]), int(found[2])) if found else (0, 0)
    if min(size) < SMALLEST or max(size) > LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give WIDTHxHEIGHT, each from {SMALLEST} to {LARGEST}, such as 320x160"
        )
    return size


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("output_dir", help="a folder to make; reused when it holds the same data")
    parser.add_argument(
        "--nproc", type=whole_number(1), default=os.cpu_count(), help="processes (all cores)"
    )
    for field in fields(DemoData):
        option = "--" + field.name.replace("_", "-")
        if field.name == "size":
            parser.add_argument(
                option, type=width_x_height, default="320x160",
                help="WIDTHxHEIGHT in pixels (%(default)s)",
            )  # fmt: skip
        else:
            meaning = "of all chance" if field.name == "seed" else "number of images"
            parser.add_argument(option, type=whole_number(0), default=field.default,
                                help=f"{meaning} (%(default)s)")  # fmt: skip
    arguments = vars(parser.parse_args())
    output_dir, num_processes = arguments.pop("output_dir"), arguments.pop("nproc")
    output_dir = user_path(output_dir, "the folder")
    made = make_demo_data(output_dir, DemoData(**arguments), num_processes)
    print(f"{output_dir}: {'demo data made' if made else 'demo data is there already'}")


if __name__ == "__main__":
    run_tool(main)
