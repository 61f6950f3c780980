#!/usr/bin/env python3
"""Write the archive that Dark Zurich's test server takes.

    tools/export_dark_zurich.py --config-file RUN/config.yaml --output submission.zip \
        MODEL.WEIGHTS RUN/model_final.pth [KEY VALUE ...]

Per test image, by its own name and at its own size: labelTrainIds/ holds the train IDs (uint8),
confidence/ the probability of the predicted class (uint16, 65535 is 1), labelTrainIds_invalid/ the
train IDs again, as no pixel is declared invalid, so that the server's UIoU equals its IoU. The archive
is not written where images are missing. See datasets/README.md for the server.
"""

import argparse
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pppc
from detectron2.data import DatasetCatalog
from pppc.arguments import ToolParser, whole_number
from pppc.data.splits import SPLITS
from pppc.errors import InputError, run_tool
from pppc.files import atomic_write, new_file
from pppc.prediction import Prediction, Predictor
from tqdm import tqdm

TEST_SET = "dark_zurich_test_night_unlabeled"


def images_of_the_test_set(num_images: int) -> list[str]:
    """File names of the test images; InputError: they are not ``num_images``, or two have one name."""
    paths = [record["file_name"] for record in DatasetCatalog.get(TEST_SET)]
    if len(paths) != num_images:
        folder = Path(paths[0]).parent.parent
        raise InputError(
            f"{folder} holds {len(paths)} images, the test split has {num_images}: the server takes "
            f"whole submissions only. {SPLITS[TEST_SET].hint}"
        )
    names = Counter(Path(path).name for path in paths)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise InputError(
            f"{paths[0]} and others: the name {repeated[0]} occurs twice, the server takes files by "
            "name. Remove all but one"
        )
    return paths


def encode(prediction: Prediction) -> dict[str, bytes]:
    """The PNG of each folder of the archive."""
    confidence = np.round(65535 * prediction.confidence).astype(np.uint16)
    label, confidence = (
        cv2.imencode(".png", image)[1].tobytes() for image in (prediction.labels, confidence)
    )
    return {"labelTrainIds": label, "confidence": confidence, "labelTrainIds_invalid": label}


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, help="the archive, a .zip")
    parser.add_argument(
        "--num-images", type=whole_number(1), default=SPLITS[TEST_SET].published_size,
        help="how many images the test split has (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    arguments = parser.parse_args()
    cfg = pppc.load_config(arguments.config_file, arguments.opts)
    output = new_file(arguments.output, "--output", (".zip",))
    paths = images_of_the_test_set(arguments.num_images)
    model = Predictor(cfg)
    with (
        atomic_write(output) as unfinished,
        zipfile.ZipFile(unfinished, "w") as archive,  # PNGs are compressed already
    ):
        for path in tqdm(paths, unit="image"):
            for folder, content in encode(model.predict(path)).items():
                archive.writestr(f"{folder}/{Path(path).name}", content)
    print(f"{output}: {len(paths)} images in 3 folders")


if __name__ == "__main__":
    run_tool(main)
