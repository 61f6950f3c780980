#!/usr/bin/env python3
"""Draw where a trained model is uncertain and where it errs, a row per image of its test set.

    tools/draw_uncertainty.py --config-file RUN/config.yaml --output PICTURE.png [--images 3] \
        MODEL.WEIGHTS RUN/model_final.pth

A row shows the image, the truth, the prediction, wrong pixels in white, then from dark (certain) to
bright the uncertainty by the prototypes, the embedding's log-variance and the entropy of the
prediction.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pppc
from detectron2.config import CfgNode
from pppc.checkpoint import trained_model
from pppc.class_map import class_map
from pppc.data import label_reader
from pppc.data.catalog import dataset_records, model_metadata
from pppc.data.images import read_image
from pppc.data.mapper import TestMapper
from pppc.visualization import captioned_row, colorize_labels, colorize_uncertainty
from torch import nn


def draw_row(model: nn.Module, record: dict, cfg: CfgNode) -> np.ndarray:
    """One image's row, RGB."""
    metadata = model_metadata(cfg)
    image = read_image(record["file_name"], "RGB", record.get("intensities"))
    truth = label_reader(cfg, cfg.DATASETS.TEST[0]).read(record["sem_seg_file_name"])
    (output,) = model([TestMapper(cfg)(record)])
    prediction = class_map(output["sem_seg"], record["file_name"])
    probability = output["sem_seg"].cpu().softmax(0)
    labelled = truth < len(metadata.stuff_classes)
    wrong = np.where(labelled & (prediction != truth), 255, 0).astype(np.uint8)
    return captioned_row(
        {
            "image": image,
            "truth": colorize_labels(truth, metadata.stuff_colors),
            "prediction": colorize_labels(prediction, metadata.stuff_colors),
            "wrong": np.repeat(wrong[:, :, None], 3, axis=2),
            "uncertainty": colorize_uncertainty(output["uncertainty"].cpu().numpy()),
            "log-variance": colorize_uncertainty(output["log_variance"].cpu().numpy()),
            "entropy": colorize_uncertainty(-probability.xlogy(probability).sum(0).numpy()),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", type=Path, required=True, help="the picture")
    parser.add_argument("--images", type=int, default=3, help="evenly spread over the test set")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    cfg = pppc.load_config(args.config_file, ["TEST.UNCERTAINTY", True, *args.opts])
    if args.output.exists():
        sys.exit(f"error: {args.output} exists already: remove it or choose another name")
    try:
        model = trained_model(cfg)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    records = dataset_records(cfg, cfg.DATASETS.TEST[0])
    number = min(args.images, len(records))
    chosen = records[len(records) // (2 * number) :: len(records) // number]
    rows = [draw_row(model, record, cfg) for record in chosen[:number]]
    picture = np.concatenate(rows)[:, :, ::-1]
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    if not cv2.imwrite(str(args.output), half):
        raise OSError(f"{args.output} could not be written: does its folder exist?")


if __name__ == "__main__":
    main()
