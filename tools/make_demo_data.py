#!/usr/bin/env python3
"""Make the demo data: streets in the formats of GTA V, SYNTHIA, Cityscapes and Dark Zurich."""

import argparse
import os
import sys
from dataclasses import fields

from pppc.data.demo.datasets import DemoData, make_demo_data


def width_x_height(text: str) -> tuple[int, int]:
    width, height = (int(number) for number in text.split("x"))
    return width, height


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("output_dir", help="a folder to make; reused when it holds the same data")
    parser.add_argument("--nproc", type=int, default=os.cpu_count(), help="processes")
    for field in fields(DemoData):
        option = "--" + field.name.replace("_", "-")
        if field.name == "size":
            parser.add_argument(
                option, type=width_x_height, default="320x160", help="WIDTHxHEIGHT in pixels"
            )
        else:
            meaning = "of all chance" if field.name == "seed" else "number of images"
            parser.add_argument(option, type=int, default=field.default, help=meaning)
    arguments = vars(parser.parse_args())
    output_dir, num_processes = arguments.pop("output_dir"), arguments.pop("nproc")
    try:
        made = make_demo_data(output_dir, DemoData(**arguments), num_processes)
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{output_dir}: {'demo data made' if made else 'demo data is there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
