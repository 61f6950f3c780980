"""Does the model know where it errs, and are its probabilities what they say?

Shapes: P pixels.
"""

import csv
import io
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import has_event_storage
from detectron2.utils.logger import create_small_table
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import Tensor

from ..data.labels import LabelReader
from ..files import free_path, write_atomically
from .calibration import (
    calibration_error,
    error_detection,
    near_boundary,
    reliability,
    risk_coverage,
)
from .class_map import resized

logger = logging.getLogger(__name__)

PIXELS_PER_IMAGE = 20_000  # enough for the third digit, and a large test set fits in memory
EDGE = 3  # pixels from another class at most
POINTS = 101  # of a risk-coverage curve
# Uncertainties that some models give, by their names in the results.
OUTPUTS = {
    "prototypes": "uncertainty", "variance": "log_variance", "calibrated": "error_probability",
}  # fmt: skip

# (P,) each: "wrong" and "edge" bool, "Brier" and "NLL", and each uncertainty.
Pixels = dict[str, np.ndarray]


def _uncertainties(pixels: Pixels) -> list[str]:
    return [name for name in pixels if name not in ("wrong", "edge", "Brier", "NLL")]


def _probabilities(pixels: Pixels) -> list[str]:
    """Those of them that are probabilities of error."""
    return [name for name in ("confidence", "calibrated") if name in pixels]


def measures(pixels: Pixels) -> dict[str, float]:
    """What :meth:`UncertaintyEvaluator.evaluate` gives of some pixels."""
    wrong = pixels["wrong"]
    found = {
        f"{measure}-{name}": 100 * value
        for name in _uncertainties(pixels)
        for measure, value in error_detection(pixels[name], wrong).items()
    }
    for name in _probabilities(pixels):
        end, right = "" if name == "confidence" else f"-{name}", 1 - pixels[name]
        found[f"ECE{end}"] = 100 * calibration_error(right, ~wrong)
        found[f"ECE-adaptive{end}"] = 100 * calibration_error(right, ~wrong, equal_mass=True)
    return found | {
        "AURC-perfect": found["AURC-entropy"] - found["E-AURC-entropy"],
        "AURC-none": 100 * float(wrong.mean()),
        "Brier": 100 * float(pixels["Brier"].mean()),
        "NLL": float(pixels["NLL"].mean()),
    }


def curves(pixels: Pixels) -> dict[str, dict]:
    """The bins of a reliability diagram, and shares of errors by the share of pixels that is left.

    Examples:
        >>> pixels = {"wrong": np.array([False, True]), "confidence": np.array([0.25, 0.5])}
        >>> curves(pixels)["risk_coverage"]
        {'coverage': [0.5, 1.0], 'confidence': [0.0, 0.5]}
        >>> curves(pixels)["reliability"]["confidence"]["accuracy"]
        [0.0, 1.0]
    """
    wrong = pixels["wrong"]
    left = np.unique(np.linspace(0, len(wrong) - 1, POINTS).astype(int))
    return {
        "reliability": {
            name: {
                key: values.tolist()
                for key, values in reliability(1 - pixels[name], ~wrong)._asdict().items()
            }
            for name in _probabilities(pixels)
        },
        "risk_coverage": {
            "coverage": ((left + 1) / len(wrong)).tolist(),
            **{
                name: risk_coverage(pixels[name], wrong)[left].tolist()
                for name in _uncertainties(pixels)
            },
        },
    }


def draw(found: Mapping[str, Mapping]) -> Figure:
    """The curves of :func:`curves`."""
    figure = Figure((9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot((0, 1), (0, 1), "k:")
    for name, bins in found["reliability"].items():
        left.plot(bins["confidence"], bins["accuracy"], "o-", label=name)
    left.set(xlabel="confidence", ylabel="share of right pixels", xlim=(0, 1), ylim=(0, 1))
    coverage = found["risk_coverage"]["coverage"]
    for name, risk in found["risk_coverage"].items():
        if name != "coverage":
            right.plot(coverage, risk, label=name)
    right.set(xlabel="share of pixels left", ylabel="share of errors", xlim=(0, 1), ylim=(0, None))
    left.legend()
    right.legend()
    return figure


class UncertaintyEvaluator(DatasetEvaluator):
    """Compare uncertainties and probabilities of the prediction with the labels.

    "confidence" and "entropy" are of the class probabilities. Where the model has them (TEST.UNCERTAINTY),
    "prototypes" is the entropy of the classes by the scores with the prototypes and "variance" the
    embedding's mean log-variance; "calibrated" is the probability of error (TEST.CALIBRATION). Of a large
    image every n-th labeled pixel counts.

    Args:
        label_reader: reads the data set's labels as the model's classes.
        file: the JSON file for what :meth:`evaluate` finds, with the curves; beside it a CSV table by image
            and the curves as SVG. A training's next evaluation replaces them. None: they are not written.
    """

    def __init__(self, label_reader: LabelReader, file: Path | None = None):
        self.label_reader = label_reader
        self.num_classes = label_reader.num_classes
        self.file = file
        self.reset()

    def reset(self) -> None:
        self.images: list[tuple[str, Pixels]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for given, output in zip(inputs, outputs):
            label = self.label_reader.label_of(given)
            label = resized(label, tuple(output["sem_seg"].shape[1:]))
            self.images.append((given["file_name"], self._pixels(label, output)))

    def _pixels(self, label: np.ndarray, output: dict[str, Tensor]) -> Pixels:
        """What counts of an image, by its label ``(H, W)`` and its prediction."""
        labeled = np.flatnonzero(label < self.num_classes)
        chosen = labeled[:: max(1, math.ceil(len(labeled) / PIXELS_PER_IMAGE))]
        scores = output["sem_seg"].flatten(1)[:, chosen].float()
        probability, classes = scores.softmax(0), scores.argmax(0).cpu().numpy()
        true = torch.from_numpy(label.flat[chosen].astype(np.int64)).to(scores.device)
        found = {
            "Brier": (probability - F.one_hot(true, self.num_classes).T).square().sum(0),
            "NLL": F.cross_entropy(scores.T, true, reduction="none"),
            "confidence": 1 - probability.amax(0),
            "entropy": -probability.xlogy(probability).sum(0),
        }
        for name, key in OUTPUTS.items():
            if key in output:
                found[name] = output[key].flatten()[chosen]
        edges = near_boundary(label, self.num_classes, EDGE)
        return {
            "wrong": classes != label.flat[chosen],
            "edge": edges.flat[chosen],
            **{name: values.float().cpu().numpy() for name, values in found.items()},
        }

    def evaluate(self) -> OrderedDict | None:
        """Returns:
        ``{"uncertainty": {...}}``, in percent but for "NLL": of each uncertainty the measures of
        :func:`pppc.evaluation.calibration.error_detection`, such as "AUROC-entropy", and the AURC of a
        perfect one and of none; of the probabilities "ECE", "ECE-adaptive", "Brier" (of all classes, so
        at most 200) and "NLL", in nats; "ECE-calibrated" and "ECE-adaptive-calibrated" of the probability of
        error. The same as "uncertainty-edges" of pixels of which another class
        is at most ``EDGE`` pixels away, and as "uncertainty-inside" of the others, where there are some.
        None in the processes that are not the first.
        """
        gathered = comm.gather(self.images)
        if not comm.is_main_process():
            return None
        images = dict(image for part in gathered for image in part)
        pixels = {
            name: np.concatenate([image[name] for image in images.values()])
            for name in next(iter(images.values()))
        }
        results = OrderedDict(uncertainty=measures(pixels))
        for part, mask in (("edges", pixels["edge"]), ("inside", ~pixels["edge"])):
            if mask.any():
                chosen = {name: values[mask] for name, values in pixels.items()}
                results[f"uncertainty-{part}"] = measures(chosen)
        self._log(results["uncertainty"])
        if self.file is not None:
            of_images = {
                file: measures(image) for file, image in images.items() if len(image["wrong"])
            }
            self._write(results, of_images, curves(pixels))
        return results

    @staticmethod
    def _log(found: Mapping[str, float]) -> None:
        """Detectron2 prints no such keys."""
        names = [key.removeprefix("AUROC-") for key in found if key.startswith("AUROC-")]
        rows = [
            {"uncertainty": name}
            | {
                key.removesuffix(f"-{name}"): v
                for key, v in found.items()
                if key.endswith(f"-{name}")
            }
            for name in names
        ]
        table = tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".2f")
        logger.info("Does uncertainty tell errors? In percent:\n%s", table)
        rest = {k: v for k, v in found.items() if not k.endswith(tuple(names))}
        logger.info("%s", create_small_table(rest))

    def _write(self, results: Mapping, of_images: Mapping, found: Mapping) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        file = self.file if has_event_storage() else free_path(self.file)
        content = {"measures": results, **found}
        write_atomically(file, json.dumps(content, indent=1).encode())
        table = io.StringIO(newline="")
        rows = [{"file": name} | row for name, row in of_images.items()]
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(
            file.with_suffix(".csv"), table.getvalue().encode(errors="surrogateescape")
        )
        picture = io.BytesIO()
        draw(found).savefig(picture, format="svg")
        write_atomically(file.with_suffix(".svg"), picture.getvalue())
