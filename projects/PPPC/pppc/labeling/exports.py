"""Predictions as first labels for CVAT and Label Studio.

Both get the images as they are in a folder beside. What comes back is read by a data file
(:mod:`pppc.data.data_file`).
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np

from ..data.formats.recognition import voc_colors
from ..files import atomic_write, write_atomically

Color = tuple[int, int, int]
BACKGROUND = "background"  # CVAT's name of what no one labeled, black
RUN_BITS = (3, 5, 9, 16)  # sizes of a run's length in Label Studio's format


def write_cvat(
    path: Path,
    labels: Iterable[tuple[str, np.ndarray]],
    names: Sequence[str],
    colors: Sequence[Sequence[int]],
) -> None:
    """An archive of CVAT's format "Segmentation mask 1.1", for its "Upload annotations".

    Args:
        path: of the .zip.
        labels: images' names, and the class of each pixel, ``(H, W)`` uint8.
        names, colors: of the classes; colors that are black or stand twice are replaced.
    """
    colors = _distinct(names, colors)
    table = np.array(colors, np.uint8)[:, ::-1]  # OpenCV's order
    lines = [
        f"{name}:{','.join(map(str, color))}::" for name, color in zip(names, colors, strict=True)
    ]
    if BACKGROUND not in names:
        lines.insert(0, f"{BACKGROUND}:0,0,0::")
    stems = []
    with atomic_write(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        for image, label in labels:
            stems.append(str(Path(image).with_suffix("")))
            png = cv2.imencode(".png", table[label])[1].tobytes()
            for folder in ("SegmentationClass", "SegmentationObject"):  # a class is one object
                archive.writestr(f"{folder}/{stems[-1]}.png", png)
        archive.writestr("labelmap.txt", "# label:color_rgb:parts:actions\n" + _joined(lines))
        archive.writestr("ImageSets/Segmentation/default.txt", _joined(stems))


def _joined(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _distinct(names: Sequence[str], colors: Sequence[Sequence[int]]) -> list[Color]:
    """A color of its own for each class, black for the background alone."""
    chosen: list[Color] = []
    spare = iter(voc_colors()[1:])
    for name, color in zip(names, colors):
        red, green, blue = color if name != BACKGROUND else (0, 0, 0)
        wanted = chain([(red, green, blue)], spare)
        free = (c for c in wanted if c not in chosen and (any(c) or name == BACKGROUND))
        chosen.append(next(free))
    return chosen


def write_label_studio(
    path: Path,
    labels: Iterable[tuple[str, np.ndarray]],
    names: Sequence[str],
    colors: Sequence[Sequence[int]],
    folder: str,
) -> None:
    """Tasks with predictions for Label Studio's "Import", and its labeling interface beside them as XML.

    Args:
        path: of the .json.
        labels, names, colors: as of :func:`write_cvat`.
        folder: of the images, below the one that Label Studio serves local files from.
    """
    with atomic_write(path) as unfinished, open(unfinished, "w") as file:
        for number, (image, label) in enumerate(labels):
            regions = list(_regions(label, names))
            task = {
                "data": {"image": f"/data/local-files/?d={folder}/{image}"},
                "predictions": [{"model_version": "pppc", "result": regions}],
            }
            file.write(("[" if number == 0 else ",\n") + json.dumps(task))
        file.write("]\n")
    rows = "".join(
        f'    <Label value={quoteattr(name)} background="#{red:02x}{green:02x}{blue:02x}"/>\n'
        for name, (red, green, blue) in zip(names, _distinct(names, colors))
    )
    interface = (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="tag" toName="image">\n{rows}  </BrushLabels>\n</View>\n'
    )
    write_atomically(path.with_suffix(".xml"), interface.encode())


def _regions(label: np.ndarray, names: Sequence[str]) -> Iterator[dict]:
    """A brush stroke for each class that is there."""
    height, width = label.shape
    for index in np.unique(label).tolist():
        value = {"format": "rle", "rle": encode_rle(label == index), "brushlabels": [names[index]]}
        yield {
            "id": f"class_{index}", "type": "brushlabels", "from_name": "tag", "to_name": "image",
            "original_width": width, "original_height": height, "image_rotation": 0, "value": value,
        }  # fmt: skip


def encode_rle(mask: np.ndarray) -> list[int]:
    """A mask ``(H, W)`` bool as Label Studio's run lengths: bytes of four channels, each 0 or 255.

    32 bits of how many values there are, 5 and four times 4 of the sizes of a value and of run lengths, each
    less 1; then of each run a bit that says it is one, 2 of which size its length has, the length less 1, and
    the value.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = 4 * np.diff(starts, append=flat.size)
    bits = [f"{4 * flat.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    for length, inside in zip(lengths.tolist(), flat[starts].tolist()):
        while length > 0:
            part = min(length, 2 ** RUN_BITS[-1])
            size = next(i for i, size in enumerate(RUN_BITS) if part <= 2**size)
            bits.append(f"1{size:02b}{part - 1:0{RUN_BITS[size]}b}{255 * inside:08b}")
            length -= part
    return np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) - ord("0")).tolist()
