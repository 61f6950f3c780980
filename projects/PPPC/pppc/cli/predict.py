"""Predict images and videos with a trained model.

    %(prog)s --model RUN --input FILE_FOLDER_OR_GLOB ... --output DIR [KEY VALUE ...]

RUN is a run's folder or one of its checkpoints. Folders are searched with all folders in them; a pattern
such as "night/**/*.jpg" is given in quotes. DIR gets the inputs' tree in each of

    masks/        the class of each pixel, its index, 8-bit PNG
    color/        the same as a palette PNG in the classes' colors
    overlay/      the classes over the image, with a legend, JPEG, at most 2048 pixels a side
    confidence/   16-bit PNG, 65535 is a probability of 1
    uncertainty/  16-bit PNG, 65535 is the logarithm of the number of classes, the highest there is;
                  of models that were trained with the contrast

and predictions.csv: of each image its share of each class, mean confidence and seconds. The frames of a
video CLIP.mp4 are named CLIP/000000, ..., and overlay/CLIP.mp4 shows them. What was predicted into DIR
before is kept, unless --overwrite is given. Files that can't be read are named at the end, with exit
status 1, after all others were predicted.
"""

import argparse
import glob
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from sys import stderr

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..arguments import ToolParser, whole_number
from ..data.labels import pixel_histogram
from ..data.listing import IMAGE_ENDINGS, files_below, is_hidden
from ..errors import InputError, printable
from ..files import atomic_write, unfinished_files, user_path, write_atomically
from ..prediction import WINDOW, Predictor, load
from ..prediction_table import PredictionTable
from ..visualization import overlay, with_legend

VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
OVERLAY_SIDE = 2048  # pixels, at most
FULL = 65535  # the highest value of 16 bits


@dataclass(frozen=True)
class Source:
    """An image or video; ``name`` is its path in the output's folders, without an ending."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_ENDINGS


def find_sources(inputs: list[str], output: Path) -> list[Source]:
    """What --input names, without what lies in the output's folder.

    Names are relative to the folder, or to the one that all inputs share. Two files that differ in their
    endings alone keep these.

    Raises:
        InputError: an input is not there, or holds no image.
    """
    roots, paths = [], []
    for text in inputs:
        root, found = _files_of(Path(os.path.abspath(user_path(text, "--input"))), text)
        found = [path for path in found if output not in path.parents]
        if not found:
            raise InputError(f"--input {text}: there is no image or video")
        roots.append(root)
        paths += found
    paths = sorted(set(paths))
    root = os.path.commonpath(roots)
    names = [path.relative_to(root) for path in paths]
    number = Counter(name.with_suffix("") for name in names)
    return [
        Source(path, str(name if number[name.with_suffix("")] > 1 else name.with_suffix("")))
        for path, name in zip(paths, names)
    ]


def _files_of(path: Path, text: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the images and videos."""
    endings = (*IMAGE_ENDINGS, *VIDEO_ENDINGS)
    if path.is_dir():
        files = [name for name in files_below(path) if name.lower().endswith(endings)]
        return path, [path / name for name in files if not is_hidden(name)]
    if path.exists():
        return path.parent, [path]
    if not glob.has_magic(text):
        raise InputError(f"--input {text}: there is no such file or folder")
    root = next(folder for folder in path.parents if not glob.has_magic(str(folder)))
    matches = [
        _files_of(Path(match), match)[1] for match in sorted(glob.glob(str(path), recursive=True))
    ]
    return root, [
        file for files in matches for file in files if file.name.lower().endswith(endings)
    ]


def pictures(
    model: Predictor, source: Source, every: int
) -> Iterator[tuple[str, str, Callable[[], np.ndarray]]]:
    """Of an image, or of each frame that is predicted: its place, its name, and what decodes it.

    Raises:
        InputError: a video can't be read.
    """
    path, name = source.path, source.name
    if not source.is_video:
        yield str(path), name, lambda: model.read(path)
        return
    video = cv2.VideoCapture(str(path))

    def decoded() -> np.ndarray:
        whole, frame = video.retrieve()
        if not whole:
            raise InputError(f"{path}: frame {number} can't be decoded: get the video again")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    number = 0
    while video.grab():
        if number % every == 0:
            yield f"{path}#{number}", f"{name}/{number:06d}", decoded
        number += 1
    if not number:
        raise InputError(
            f"{path}: no video that OpenCV can read: get it again, or convert it to MP4"
        )


def number_of_pictures(source: Source, every: int) -> int:
    """As far as a video tells."""
    if not source.is_video:
        return 1
    frames = cv2.VideoCapture(str(source.path)).get(cv2.CAP_PROP_FRAME_COUNT)
    return math.ceil(max(frames, 0) / every)


def predicted_maps(
    model: Predictor, pixels: np.ndarray, args: argparse.Namespace, name: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Maps ``(H, W)`` as they are written, by their folders: "masks" uint8, the others uint16.

    Returns:
        the maps, and the number of pixels of each class.
    """
    size = pixels.shape[:2]
    maps = {"masks": np.empty(size, np.uint8), "confidence": np.empty(size, np.uint16)}
    if model.has_uncertainty:
        maps["uncertainty"] = np.empty(size, np.uint16)
    counts = np.zeros(256, np.int64)
    highest = math.log(len(model.names))
    for part in model.parts(pixels, args.window, args.augment, name):
        maps["masks"][part.place] = part.labels
        counts += pixel_histogram(part.labels)
        maps["confidence"][part.place] = np.rint(FULL * part.confidence)
        if part.uncertainty is not None:
            share = np.clip(part.uncertainty / highest, 0, 1)
            maps["uncertainty"][part.place] = np.rint(FULL * share)
    return maps, counts[: len(model.names)]


def encoded(model: Predictor, pixels: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The content of each folder's file."""
    files = {folder: cv2.imencode(".png", values)[1].tobytes() for folder, values in maps.items()}
    color = Image.fromarray(maps["masks"])
    color.putpalette(np.asarray(model.colors, np.uint8).tobytes())
    stream = BytesIO()
    color.save(stream, "PNG")
    files["color"] = stream.getvalue()
    height, width = maps["masks"].shape
    scale = min(1, OVERLAY_SIDE / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    picture = overlay(
        cv2.resize(pixels, size, interpolation=cv2.INTER_AREA),
        cv2.resize(maps["masks"], size, interpolation=cv2.INTER_NEAREST),
        model.names,
        model.colors,
    )
    picture = with_legend(picture, model.names, model.colors)
    picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    files["overlay"] = cv2.imencode(".jpg", picture)[1].tobytes()
    return files


def output_files(output: Path, name: str, model: Predictor) -> dict[str, Path]:
    """Where the content of each folder goes."""
    folders = ["masks", "color", "overlay", "confidence", *["uncertainty"] * model.has_uncertainty]
    return {
        folder: output / folder / f"{name}{'.jpg' if folder == 'overlay' else '.png'}"
        for folder in folders
    }


def write_video(source: Source, frames: list[Path], path: Path, every: int) -> None:
    """The overlays of a video's frames as a video of the same length."""
    rate = cv2.VideoCapture(str(source.path)).get(cv2.CAP_PROP_FPS) or 25
    height, width = (side // 2 * 2 for side in cv2.imread(str(frames[0])).shape[:2])
    with atomic_write(path) as unfinished:
        code = cv2.VideoWriter_fourcc(*"mp4v")
        video = cv2.VideoWriter(str(unfinished), code, rate / every, (width, height))
        for frame in frames:
            video.write(np.ascontiguousarray(cv2.imread(str(frame))[:height, :width]))
        video.release()


class FolderPredictor:
    """Predicts sources into a folder; ``kept`` and ``new`` count pictures.

    Args:
        model: predicts.
        table: predictions.csv.
        args: of the command line.
        progress: counts pictures.
    """

    def __init__(
        self, model: Predictor, table: PredictionTable, args: argparse.Namespace, progress: tqdm
    ):
        self.model, self.table, self.args, self.progress = model, table, args, progress
        self.output = table.folder
        self.kept = self.new = 0

    def predict(self, source: Source) -> None:
        """Write the outputs of an image or video that are not there.

        Raises:
            InputError: it can't be read, or its place is taken by another one's prediction.
        """
        before, frames = self.new, []
        for place, name, decode in pictures(self.model, source, self.args.every):
            files = output_files(self.output, name, self.model)
            frames.append(files["overlay"])
            if self.table.has(place) and all(file.is_file() for file in files.values()):
                self.kept += 1
            else:
                self._predict(place, decode, files)
                self.new += 1
            self.progress.update()
        video = self.output / "overlay" / f"{source.name}.mp4"
        if source.is_video and (self.new > before or not video.is_file()):
            write_video(source, frames, video, self.args.every)

    def _predict(
        self, place: str, decode: Callable[[], np.ndarray], files: dict[str, Path]
    ) -> None:
        mask = str(files["masks"].relative_to(self.output))
        self.table.claim(mask, place)
        start = time.perf_counter()
        pixels = decode()
        maps, counts = predicted_maps(self.model, pixels, self.args, place)
        seconds = time.perf_counter() - start
        for folder, content in encoded(self.model, pixels, maps).items():
            files[folder].parent.mkdir(parents=True, exist_ok=True)
            write_atomically(files[folder], content)
        confidence = maps["confidence"].mean() / FULL
        figures = [
            f"{seconds:.3f}",
            f"{confidence:.4f}",
            *(f"{share:.4f}" for share in counts / counts.sum()),
        ]
        self.table.add([place, mask, *figures])


def shard(text: str) -> tuple[int, int]:
    """The type of --shard: "2/4" is the second of four."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: give PART/PARTS, such as 1/4 to 4/4")
    return int(part), int(parts)


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
    parser.add_argument("--model", required=True, help="a run's folder, or a checkpoint")
    parser.add_argument(
        "--input", nargs="+", required=True, help="files, folders, patterns, videos"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument(
        "--window", type=whole_number(32), default=WINDOW, metavar="PIXELS",
        help="images with a longer side are predicted in overlapping windows of this size, each resized "
        "like an image of its own (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--augment", action="store_true", help="average with the mirror image: twice the time"
    )
    parser.add_argument("--half", action="store_true", help="half precision (SOLVER.AMP.TYPE)")
    parser.add_argument(
        "--every", type=whole_number(1), default=1, metavar="N", help="of a video each N-th frame"
    )
    parser.add_argument(
        "--shard", type=shard, default=(1, 1), metavar="I/N",
        help="predict the I-th of N parts of the inputs, on a GPU or machine of its own; a call without "
        "it afterwards joins the parts' tables",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    output = output_folder(args.output)
    part, parts = args.shard
    sources = find_sources(args.input, output)[part - 1 :: parts]
    Image.MAX_IMAGE_PIXELS = 2**29  # Pillow refuses twice as many, as OpenCV does
    half = ["SOLVER.AMP.ENABLED", True] if args.half else []
    model = load(args.model, [*half, *args.opts])
    places = {str(source.path) for source in sources} if args.overwrite else set()
    failures = []
    total = sum(number_of_pictures(source, args.every) for source in sources)
    with (
        PredictionTable(output, args.shard, model.names, places) as table,
        tqdm(total=total, unit="image") as progress,
    ):
        predictor = FolderPredictor(model, table, args, progress)
        for source in sources:
            try:
                predictor.predict(source)
            except InputError as error:
                failures.append(str(error))
    kept = f", {predictor.kept} kept (--overwrite predicts them again)" if predictor.kept else ""
    print(f"{printable(str(output))}: {predictor.new} predicted{kept}")
    for failure in failures:
        print(f"error: {failure}", file=stderr)
    return int(bool(failures))
