"""Say which target images to label next, and label them first for CVAT and Label Studio.

    %(prog)s mine.yaml --model RUN --output DIR [--number 20] [--random]

RUN is a run's folder, one of its checkpoints, or a model folder. Chosen are the target images of the data
file that the model is most unsure of, each class that it predicts counting alike: to train with them. For a
`val` that tells how good a model is on the target, take --random: the mIoU on the hardest images is too low
for all of them. DIR gets

    images/            copies of the chosen images
    ranking.csv        all target images, in order: how unsure the model is of each and of each class there
    cvat.zip           predictions as "Segmentation mask 1.1", for CVAT's "Upload annotations"
    label_studio.json  predictions for Label Studio's "Import"; label_studio.xml is the labeling interface
    others.txt         the target's other images

docs/labeling.md shows the way there and back.
"""

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..arguments import ToolParser, whole_number
from ..data.catalog import list_records
from ..data.data_file import register_data_file
from ..errors import InputError, printable
from ..files import write_atomically
from ..labeling.exports import write_cvat, write_label_studio
from ..labeling.ranking import RankedImage, rank_images
from ..model_folder import new_folder
from ..prediction import load

SEED = 0  # of --random


def main() -> None:
    parser = ToolParser(__doc__)
    add = parser.add_argument
    add("data", metavar="FILE.yaml", help="the data file (docs/own_images.md)")
    add("--model", required=True, metavar="RUN", help="whose predictions are to be corrected")
    add("--output", required=True, metavar="DIR", help="a new folder")
    add("--number", type=whole_number(1), default=20, metavar="N",
        help="images to label (default: %(default)s)")  # fmt: skip
    add("--random", action="store_true", help="choose at random, for a val")
    args = parser.parse_args()
    data = register_data_file(args.data)
    images = [record["file_name"] for name in data.target for record in list_records(name)]
    if not images:
        raise InputError(f"{args.data} has no target: give target, with images: FOLDER")
    folder = new_folder(args.output)
    model = load(args.model)
    ranked = rank_images(model, images)
    chosen = [one.image for one in ranked[: args.number]]
    if args.random:
        order = np.random.default_rng(SEED).permutation(len(images))
        chosen = [images[index] for index in order[: args.number]]
    (folder / "images").mkdir(parents=True)
    copies = {image: _copy(image, folder / "images", number) for number, image in enumerate(chosen)}
    parts = (model.names, model.colors)
    # Predicted once for both, and kept as PNG, which is small.
    predicted = {name: _encoded(model.predict(image).labels) for image, name in copies.items()}
    write_cvat(folder / "cvat.zip", _decoded(predicted), *parts)
    write_label_studio(folder / "label_studio.json", _decoded(predicted), *parts, "images")
    others = sorted(set(images) - set(chosen))
    _write_lines(folder / "others.txt", others)
    _write_table(folder / "ranking.csv", ranked, model.names)
    why = "drawn at random" if args.random else "of which the model is most unsure"
    print(printable(f"{folder / 'images'}: {len(chosen)} of {len(images)} target images, {why}."))
    print("docs/labeling.md says how to label them in CVAT or Label Studio, and what to do then.")


def _copy(image: str, folder: Path, number: int) -> str:
    """The name of a copy, which no other image of the folder has."""
    name = f"{number:04d}_{Path(image).name}"
    shutil.copyfile(image, folder / name)
    return name


def _encoded(labels: np.ndarray) -> np.ndarray:
    return cv2.imencode(".png", labels.astype(np.uint8))[1]


def _decoded(predicted: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for name, png in predicted.items():
        yield name, cv2.imdecode(png, cv2.IMREAD_UNCHANGED)


def _write_lines(path: Path, lines: list[str]) -> None:
    write_atomically(
        path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    )


def _write_table(path: Path, ranked: list[RankedImage], names: list[str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["image", "uncertainty", *names])
    for one in ranked:
        means = ["" if np.isnan(mean) else f"{mean:.4f}" for mean in one.by_class]
        writer.writerow([one.image, f"{one.score:.4f}", *means])
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
