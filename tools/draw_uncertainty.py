#!/usr/bin/env python3
"""Draw where a trained model is uncertain and where it errs, a row per image of its test set.

    tools/draw_uncertainty.py --config-file RUN/config.yaml --output PICTURE.png [--images 3] \
        MODEL.WEIGHTS RUN/model_final.pth

A row shows the image, the truth, the prediction, wrong pixels in white, then from dark (certain) to
bright the uncertainty by the prototypes, the embedding's log-variance and the entropy of the
prediction.
"""

import argparse

import cv2
import numpy as np
import pppc
from detectron2.config import CfgNode
from pppc.arguments import ToolParser, whole_number
from pppc.data import label_reader
from pppc.data.catalog import label_files, list_records
from pppc.data.labels import LabelReader
from pppc.errors import InputError, run_tool
from pppc.evaluation.class_map import class_map
from pppc.files import new_file, write_atomically
from pppc.prediction import Predictor
from pppc.visualization import captioned_row, colorize_labels, colorize_uncertainty


def draw_row(model: Predictor, record: dict, reader: LabelReader) -> np.ndarray:
    """One image's row, RGB."""
    truth = reader.read(record["sem_seg_file_name"])
    output = model(record["file_name"])
    prediction = class_map(output["sem_seg"], record["file_name"])
    probability = output["sem_seg"].cpu().softmax(0)
    labeled = truth < len(model.names)
    wrong = np.where(labeled & (prediction != truth), 255, 0).astype(np.uint8)
    return captioned_row(
        {
            "image": model.read(record["file_name"]),
            "truth": colorize_labels(truth, model.colors),
            "prediction": colorize_labels(prediction, model.colors),
            "wrong": np.repeat(wrong[:, :, None], 3, axis=2),
            "uncertainty": colorize_uncertainty(output["uncertainty"].cpu().numpy()),
            "log-variance": colorize_uncertainty(output["log_variance"].cpu().numpy()),
            "entropy": colorize_uncertainty(-probability.xlogy(probability).sum(0).numpy()),
        }
    )


def read_settings(config_file: str, opts: list[str]) -> CfgNode:
    """The configuration, with the uncertainty in the predictions.

    Raises:
        InputError: it has no embedding that is uncertain, or no test set.
    """
    cfg = pppc.load_config(config_file, opts)
    if not cfg.PPPC.CONTRAST.ENABLED:
        raise InputError(
            f"{config_file}: PPPC.CONTRAST.ENABLED is False, so there is no embedding whose "
            "uncertainty could be drawn. Give a run with the contrast"
        )
    if not cfg.DATASETS.TEST:
        raise InputError(
            f"{config_file}: DATASETS.TEST is empty. Give a labeled data set, such as "
            "DATASETS.TEST \"('cityscapes_val',)\""
        )
    cfg.TEST.UNCERTAINTY = True
    return cfg


def below_each_other(rows: list[np.ndarray]) -> np.ndarray:
    """One picture of rows of any width."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    )


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", required=True, help="the picture, a .png or .jpg")
    parser.add_argument(
        "--images", type=whole_number(1), default=3, help="evenly spread over the test set"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    cfg = read_settings(args.config_file, args.opts)
    output = new_file(args.output, "--output", (".png", ".jpg"))
    name = cfg.DATASETS.TEST[0]
    reader, records = label_reader(cfg, name), list_records(name)
    label_files(name, records)
    model = Predictor(cfg)
    number = min(args.images, len(records))
    chosen = records[len(records) // (2 * number) :: len(records) // number]
    rows = [draw_row(model, record, reader) for record in chosen[:number]]
    picture = below_each_other(rows)[:, :, ::-1]
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    write_atomically(output, cv2.imencode(output.suffix, half)[1].tobytes())


if __name__ == "__main__":
    run_tool(main)
