"""Predict images and videos with a trained model.

    %(prog)s --model RUN --input FILE_FOLDER_OR_GLOB ... --output DIR [KEY VALUE ...]

RUN is a run's folder, one of its checkpoints, or a model folder. Folders are searched with all folders in
them; a pattern such as "night/**/*.jpg" is given in quotes. DIR gets the inputs' tree in each of

    masks/        the class of each pixel, its index, 8-bit PNG
    color/        the same as a palette PNG in the classes' colors
    overlay/      the classes over the image, with a legend, JPEG, at most 2048 pixels a side
    confidence/   16-bit PNG, 65535 is a probability of 1
    uncertainty/  16-bit PNG; of a calibrated model (TEST.CALIBRATION) 65535 is a probability of error of 1;
                  of others that were trained with the contrast it is the entropy of the prototypes, and
                  65535 the logarithm of the number of classes, the highest there is

and predictions.csv: of each image its path in these folders, its share of each class, mean confidence and
seconds. The frames of a video CLIP.mp4 are named CLIP/000000, ..., and overlay/CLIP.mp4 shows them. What was
predicted into DIR before is kept, unless --overwrite is given. Files that can't be read are named at the end,
with exit status 1, after all others were predicted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from ..arguments import ToolParser, whole_number
from ..errors import InputError, printable
from ..files import unfinished_files, user_path
from ..prediction import load
from ..prediction.folder import OUTPUTS, FolderPredictor
from ..prediction.sources import Source, find_sources
from ..prediction.table import PredictionTable
from ..processes import map_in_processes

AUGMENT_SCALES = (0.75, 1, 1.25)


class Outcome(NamedTuple):
    """What a process has done: numbers of pictures, a line for each failure, the model's classes."""

    new: int
    kept: int
    failures: list[str]
    class_names: list[str]


def predict_part(
    args: argparse.Namespace, sources: Sequence[Source], part_of: tuple[int, int]
) -> Outcome:
    """Predict the I-th of N parts of the sources.

    Raises:
        InputError: the model can't be used, or gives no uncertainty, which is asked for.
    """
    part, parts = part_of
    sources = sources[part - 1 :: parts]
    Image.MAX_IMAGE_PIXELS = 2**29  # Pillow refuses twice as many, as OpenCV does
    opts: list[object] = ["SOLVER.AMP.ENABLED", True] if args.half else []
    if args.num_gpus > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // args.num_gpus))
        if number := torch.cuda.device_count():
            opts += ["MODEL.DEVICE", f"cuda:{(part - 1) % number}"]
    model = load(args.model, [*opts, *args.opts])
    if "uncertainty" in (args.save or ()) and not model.has_uncertainty:
        raise InputError(
            f"{args.model} gives no uncertainty, as it was trained without the contrast and is not "
            "calibrated (TEST.CALIBRATION): leave it out of --save"
        )
    again = {str(source.path) for source in sources} if args.overwrite else set()
    total = sum(source.number_of_pictures(args.every) for source in sources)
    position = (part - 1) % args.num_gpus
    with (
        PredictionTable(args.output, part_of, model.names, again) as table,
        tqdm(total=total, unit="image", position=position) as progress,
    ):
        predictor = FolderPredictor(
            model, table, args.save or OUTPUTS, args.every, progress,
            window=args.window, batch=args.batch, mirror=args.augment,
            scales=AUGMENT_SCALES if args.augment else (1,),
        )  # fmt: skip
        predictor.predict(sources)
    return Outcome(predictor.new, predictor.kept, predictor.failures, model.names)


def predict(args: argparse.Namespace) -> Outcome:
    """Predict all sources, or the part of them that --shard names, in --num-gpus processes."""
    sources = find_sources(args.input, args.output)
    part, parts = args.shard
    shards = [
        (args.num_gpus * (part - 1) + number, args.num_gpus * parts)
        for number in range(1, args.num_gpus + 1)
    ]
    work = partial(predict_part, args, sources)
    outcomes = list(map_in_processes(work, shards, args.num_gpus, 1))
    names = outcomes[0].class_names
    if parts == 1 and args.num_gpus > 1:
        with PredictionTable(args.output, (1, 1), names, set()):
            pass  # it joins the processes' tables
    return Outcome(
        sum(outcome.new for outcome in outcomes),
        sum(outcome.kept for outcome in outcomes),
        [failure for outcome in outcomes for failure in outcome.failures],
        names,
    )


def shard(text: str) -> tuple[int, int]:
    """The type of --shard: "2/4" is the second of four."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: give PART/PARTS, such as 1/4 to 4/4")
    return int(part), int(parts)


def outputs(text: str) -> list[str]:
    """The type of --save: names of folders, with commas between."""
    names = text.split(",")
    if not set(names) <= set(OUTPUTS):
        raise argparse.ArgumentTypeError(
            f"{text!r}: give some of {','.join(OUTPUTS)}, with commas between"
        )
    return names


def output_folder(text: str) -> Path:
    """Raises InputError where it holds files that no prediction is known of."""
    folder = Path(os.path.abspath(user_path(text, "--output")))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another --output")
    if folder.is_dir() and not any(folder.glob("predictions*.csv")):
        if set(folder.iterdir()) - set(unfinished_files(folder)):
            raise InputError(
                f"{folder} holds other files than predictions: choose another --output"
            )
    return folder


def main() -> int:
    parser = ToolParser(__doc__)
    add = parser.add_argument
    add("--model", required=True, help="a run's folder, a checkpoint, or a model folder")
    add("--input", nargs="+", required=True, help="files, folders, patterns, videos")
    add("--output", required=True, metavar="DIR", help="the folder to write to")
    add("--save", type=outputs, metavar="FOLDERS",
        help=f"which folders to write, with commas between (default: {','.join(OUTPUTS)})")  # fmt: skip
    add("--window", type=whole_number(32), metavar="PIXELS",
        help="images with a longer side are predicted in overlapping windows of this size, each resized "
        "like an image of its own (default: TEST.WINDOW of the model, 2048 if it says nothing)")  # fmt: skip
    add("--augment", action="store_true",
        help=f"average over sizes ({AUGMENT_SCALES}) and mirror images: six times the time")  # fmt: skip
    add("--batch", type=whole_number(1), default=1, metavar="N",
        help="images, or windows, that go through the network at a time, where they are of one size "
        "(default: %(default)s)")  # fmt: skip
    add("--half", action="store_true", help="half precision (SOLVER.AMP.TYPE)")
    add("--every", type=whole_number(1), default=1, metavar="N", help="of a video each N-th frame")
    add("--num-gpus", type=whole_number(1), default=1, metavar="N",
        help="processes that share the inputs, each with a GPU of its own, or all on the CPU")  # fmt: skip
    add("--shard", type=shard, default=(1, 1), metavar="I/N",
        help="predict the I-th of N parts of the inputs, on a machine of its own; a call without it "
        "afterwards joins the parts' tables")  # fmt: skip
    add("--overwrite", action="store_true", help="predict again what is there")
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    number = torch.cuda.device_count()
    if number and args.num_gpus > number:
        raise InputError(
            f"--num-gpus is {args.num_gpus}: PyTorch finds {number}, give that or less"
        )
    args.output = output_folder(args.output)
    outcome = predict(args)
    kept = f", {outcome.kept} kept (--overwrite predicts them again)" if outcome.kept else ""
    print(f"{printable(str(args.output))}: {outcome.new} predicted{kept}")
    for failure in outcome.failures:
        print(f"error: {failure}", file=sys.stderr)
    return int(bool(outcome.failures))
