"""Predictions as files: the inputs' tree in each of a few folders."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..data.labels import pixel_histogram
from ..errors import InputError
from ..files import atomic_write, write_atomically
from ..visualization import overlay, with_legend
from .predictor import Part, Predictor
from .sources import Source, frames, write_video
from .table import PredictionTable

OUTPUTS = ("masks", "color", "overlay", "confidence", "uncertainty")
OVERLAY_SIDE = 2048  # pixels, at most
FULL = 65535  # the highest value of 16 bits


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, or a frame of a video, and where its outputs go.

    Attributes:
        place: the file, or FILE#NUMBER of a frame.
        name: its path in each folder, without an ending.
        pixels: ``(H, W, 3)`` uint8, RGB.
        files: of each output.
    """

    place: str
    name: str
    pixels: np.ndarray
    files: dict[str, Path]

    def __str__(self) -> str:
        return self.place


class FolderPredictor:
    """Predicts sources into a folder.

    Args:
        model: predicts.
        table: predictions.csv; in its folder go the outputs.
        outputs: some of ``OUTPUTS``; an uncertainty that the model has not is left out.
        every: of a video each so manyth frame is predicted.
        progress: counts pictures.
        how: see :meth:`pppc.prediction.predictor.Predictor.parts`.

    Attributes:
        kept, new: numbers of pictures.
        failures: a line for each file that can't be read, and for each whose name another one has.
    """

    def __init__(
        self,
        model: Predictor,
        table: PredictionTable,
        outputs: Sequence[str] = OUTPUTS,
        every: int = 1,
        progress: tqdm | None = None,
        **how: object,
    ):
        self.model, self.table, self.every, self.how = model, table, every, how
        self.outputs = [name for name in outputs if name != "uncertainty" or model.has_uncertainty]
        self.progress = progress or tqdm(disable=True)
        self.kept = self.new = 0
        self.failures: list[str] = []
        self._changed: set[Source] = set()  # videos with a new frame

    def predict(self, sources: Iterable[Source]) -> None:
        """Write the outputs of images and videos that are not there."""
        sources = list(sources)
        pictures = ((picture, picture.pixels) for picture in self._pictures(sources))
        parts = self.model.parts(pictures, **self.how)
        for picture, of_picture in groupby(parts, itemgetter(0)):
            self._write(picture, (part for _, part in of_picture))
            self.new += 1
            self.progress.update()
        if "overlay" in self.outputs:
            for source in sources:
                if source.is_video:
                    self._write_video(source)

    def _pictures(self, sources: Iterable[Source]) -> Iterator[Picture]:
        """What is to be predicted, decoded."""
        for source in sources:
            try:
                for place, name, decode in self._places(source):
                    files = self._files(name)
                    if self.table.has(place) and all(file.is_file() for file in files.values()):
                        self.kept += 1
                        self.progress.update()
                        continue
                    try:
                        self.table.claim(name, place)
                        pixels = decode()
                    except InputError as error:
                        self.failures.append(str(error))
                        continue
                    if source.is_video:
                        self._changed.add(source)
                    yield Picture(place, name, pixels, files)
            except InputError as error:
                self.failures.append(str(error))

    def _places(self, source: Source) -> Iterator[tuple[str, str, Callable[[], np.ndarray]]]:
        """Of an image, or of each frame: its place, its name, and what decodes it."""
        if not source.is_video:
            yield str(source.path), source.name, lambda: self.model.read(source.path)
            return
        for number, decode in frames(source, self.every):
            yield f"{source.path}#{number}", f"{source.name}/{number:06d}", decode

    def _files(self, name: str) -> dict[str, Path]:
        return {
            output: self.table.folder
            / output
            / f"{name}{'.jpg' if output == 'overlay' else '.png'}"
            for output in self.outputs
        }

    def _write(self, picture: Picture, parts: Iterable[Part]) -> None:
        size = picture.pixels.shape[:2]
        maps = {"masks": np.empty(size, np.uint8), "confidence": np.empty(size, np.uint16)}
        if "uncertainty" in self.outputs:
            maps["uncertainty"] = np.empty(size, np.uint16)
        counts, seconds = np.zeros(256, np.int64), 0.0
        highest = self.model.highest_uncertainty
        for part in parts:
            maps["masks"][part.place] = part.labels
            counts += pixel_histogram(part.labels)
            maps["confidence"][part.place] = np.rint(FULL * part.confidence)
            if "uncertainty" in maps:
                share = np.clip(part.uncertainty / highest, 0, 1)
                maps["uncertainty"][part.place] = np.rint(FULL * share)
            seconds += part.seconds
        for output, file in picture.files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, self._encoded(output, picture.pixels, maps))
        shares = counts[: len(self.model.names)] / counts.sum()
        confidence = maps["confidence"].mean() / FULL
        figures = [f"{seconds:.3f}", f"{confidence:.4f}", *(f"{share:.4f}" for share in shares)]
        self.table.add([picture.place, picture.name, *figures])

    def _encoded(self, output: str, pixels: np.ndarray, maps: dict[str, np.ndarray]) -> bytes:
        """The content of a file."""
        names, colors = self.model.names, self.model.colors
        if output in maps:
            return cv2.imencode(".png", maps[output])[1].tobytes()
        if output == "color":
            color = Image.fromarray(maps["masks"])
            color.putpalette(np.asarray(colors, np.uint8).tobytes())
            stream = BytesIO()
            color.save(stream, "PNG", compress_level=1)
            return stream.getvalue()
        height, width = maps["masks"].shape
        scale = min(1, OVERLAY_SIDE / max(height, width))
        size = max(1, round(scale * width)), max(1, round(scale * height))
        picture = overlay(
            cv2.resize(pixels, size, interpolation=cv2.INTER_AREA),
            cv2.resize(maps["masks"], size, interpolation=cv2.INTER_NEAREST),
            names,
            colors,
        )
        picture = cv2.cvtColor(with_legend(picture, names, colors), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", picture)[1].tobytes()

    def _write_video(self, source: Source) -> None:
        """The overlays of a video's frames as a video of the same length."""
        folder = self.table.folder / "overlay" / source.name
        video = folder.with_name(f"{folder.name}.mp4")
        pictures = sorted(folder.glob("[0-9]*.jpg"))
        pictures = [path for path in pictures if int(path.stem) % self.every == 0]
        if pictures and (source in self._changed or not video.is_file()):
            rate = cv2.VideoCapture(str(source.path)).get(cv2.CAP_PROP_FPS) or 25
            with atomic_write(video) as unfinished:
                write_video(pictures, unfinished, rate / self.every)
