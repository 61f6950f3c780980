"""What is predicted: images and videos, in files, folders and patterns of names."""

import glob
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..data.listing import IMAGE_ENDINGS, files_below, is_hidden
from ..errors import InputError
from ..files import user_path

VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class Source:
    """An image or video; ``name`` is its path in the output's folders, without an ending."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_ENDINGS

    def number_of_pictures(self, every: int) -> int:
        """1, or of a video the frames of which each ``every``-th is taken, as far as it tells."""
        if not self.is_video:
            return 1
        frames = cv2.VideoCapture(str(self.path)).get(cv2.CAP_PROP_FRAME_COUNT)
        return math.ceil(max(frames, 0) / every)


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


def frames(source: Source, every: int) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
    """Of a video the number of each ``every``-th frame, and what decodes it, ``(H, W, 3)`` RGB.

    Raises:
        InputError: the video can't be read; decoding a frame raises it, too.
    """
    video = cv2.VideoCapture(str(source.path))

    def decoded() -> np.ndarray:
        whole, frame = video.retrieve()
        if not whole:
            raise InputError(f"{source.path}: frame {number} can't be decoded: get the video again")
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    number = 0
    try:
        while video.grab():
            if number % every == 0:
                yield number, decoded
            number += 1
    finally:
        video.release()  # its threads, which an error's traceback would keep
    if not number:
        raise InputError(
            f"{source.path}: no video that OpenCV can read: get it again, or convert it to MP4"
        )


def write_video(frames: list[Path], path: Path, rate: float) -> None:
    """Pictures of one size as a video of ``rate`` frames a second."""
    height, width = (side // 2 * 2 for side in cv2.imread(str(frames[0])).shape[:2])
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (width, height))
    for frame in frames:
        video.write(np.ascontiguousarray(cv2.imread(str(frame))[:height, :width]))
    video.release()
