"""Adapt a model to your own images: from a data file to a model and pictures.

    %(prog)s mine.yaml --output RUN [--time 2h] [--encoder small] [KEY VALUE ...]

Trains source-only, then goes on from it by the recommended recipe with the target's images, compares the two
and keeps the better one. Sizes, crops and batches follow from the images and the machine, the number of
iterations from --time; all are shown with their reasons before training starts. RUN gets

    source_only.yaml, adapted.yaml   the configurations; `pppc train` takes them, too
    source_only/, adapted/           the two runs
    results.md                       IoU of every class, where the data file has "val"
    report.html                      did it work, class by class and in pictures (docs/report.md)
    pictures/                        the target images in which the two differ most
    model/                           the better model, for pppc.load and `pppc predict`

Called again with the same arguments it goes on where it stopped.
"""

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..adaptation.outcome import conclude
from ..adaptation.plan import ENCODERS, METHODS, TITLES, former_plan, make_plan, write_plan
from ..arguments import ToolParser, whole_number
from ..data.data_file import DataFile, register_data_file
from ..errors import InputError, Stopped, printable
from ..files import user_path
from ..tool_process import COMMAND, run_process


def duration(text: str) -> float:
    """The type of --time, in seconds: "2h", "90m", "1h30m", "45s"."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    seconds = found and sum(int(n or 0) * unit for n, unit in zip(found.groups(), (3600, 60, 1)))
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r}: give hours and minutes, such as 2h or 1h30m")
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ToolParser(__doc__)
    parser.add_argument(
        "words", nargs="+", metavar=("FILE.yaml", "KEY VALUE"),
        help="the data file (docs/own_images.md), then configuration keys of both trainings",
    )  # fmt: skip
    parser.add_argument("--output", required=True, metavar="RUN", help="folder of all results")
    parser.add_argument(
        "--time", type=duration, default="1h", help="for everything (default: %(default)s)"
    )
    parser.add_argument(
        "--encoder", choices=ENCODERS, default="small",
        help="small: EfficientNet-Lite0, for a CPU, too; medium: ResNet-101; large: MiT-B5, of whose weights "
        "NVIDIA allows no commercial use (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="start", metavar="CHECKPOINT",
        help="a source-only model that is there, of the same --encoder: it is not trained again",
    )  # fmt: skip
    parser.add_argument("--num-gpus", type=whole_number(1), default=1, help="processes")
    args = parser.parse_intermixed_args(arguments)
    args.data, *args.opts = vars(args).pop("words")
    print("Looking at images and labels ...", flush=True)
    with _messages_of_data():
        data, output = _planned(args)
    if (output / "model").is_dir():
        print((output / "results.md").read_text().rstrip())
        return
    for name in ["adapted"] if args.start else METHODS:
        command = [*COMMAND, "train", "--resume", "--num-gpus", args.num_gpus]
        try:
            run_process(
                [*command, "--config-file", output / f"{name}.yaml", "TEST.REPORT_IMAGES", 0],
                TITLES[name],
            )
        except Stopped as stopped:
            done = stopped.message.removesuffix(": continue with --resume")
            raise Stopped(f"{done}: the same command goes on", stopped.code) from stopped
    print(conclude(output, data).rstrip())


def _planned(args: argparse.Namespace) -> tuple[DataFile, Path]:
    """Make the plan, or take that of a run that was stopped; returns the data and the run's folder.

    Raises:
        InputError: the data have no target, or the folder is of something else.
    """
    began = time.time()
    data = register_data_file(args.data)
    if not data.target:
        raise InputError(
            f"{args.data} has no target: give target, with images: FOLDER, to adapt to"
        )
    output = Path(os.path.abspath(user_path(args.output, "--output")))
    given = {key: value for key, value in vars(args).items() if key != "output"} | {
        "data": str(data.path), "start": args.start and str(Path(args.start).resolve()),
    }  # fmt: skip
    planned = output / "plan.json"
    if planned.exists():
        plan = former_plan(planned, given)
        print(f"Going on with {printable(str(output))}\n\n{plan['text']}", flush=True)
        return data, output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no run of `pppc adapt`: choose another --output")
    plan = make_plan(args, data, output, began)
    print(f"\n{plan['text']}", flush=True)
    write_plan(output, plan, given)
    return data, output


@contextmanager
def _messages_of_data() -> Iterator[None]:
    """Show how labels are read, and which files are left out."""
    logger, handler = logging.getLogger("pppc.data"), logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
