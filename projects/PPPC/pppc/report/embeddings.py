"""Pixels' embeddings and prototypes in a plane: do the domains meet, and are the classes apart?

Shapes: P points, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from ..data.catalog import list_records
from ..errors import InputError
from ..prediction import Predictor

IMAGES = 8  # of each domain
PIXELS = 12  # of each predicted class in an image
METHODS = ("pca", "tsne")
TITLES = {"pca": "PCA", "tsne": "t-SNE"}


@dataclass(frozen=True)
class Points:
    """Points of one kind.

    Attributes:
        name, marker: of the kind, and by which it is drawn.
        places: ``(P, 2)``.
        classes: of each point, ``(P,)``: a pixel's predicted one.
        uncertainty: of each, ``(P,)``, in nats; 0 of prototypes.
    """

    name: str
    marker: str
    places: np.ndarray
    classes: np.ndarray
    uncertainty: np.ndarray


def embed(model: Predictor, method: str) -> list[Points]:
    """Pixels of source and target, the same number of each predicted class in an image, and prototypes.

    Args:
        model: one that was trained with the contrast.
        method: "pca", or "tsne", which takes seconds more and shows neighbors, not distances.

    Raises:
        InputError: scikit-learn is not installed, the model has no embedding, or there are no images.
    """
    if not find_spec("sklearn"):
        raise InputError("embeddings are drawn by scikit-learn: pip install scikit-learn")
    segmentor = model.model
    if getattr(segmentor, "prototypes", None) is None:
        raise InputError("the model was trained without the contrast, so it has no embedding")
    random = np.random.default_rng(0)
    domains = {
        "source pixels": model.cfg.DATASETS.TRAIN,
        "target pixels": model.cfg.DATASETS.TARGET,
    }
    found = {name: _pixels(model, data_sets, random) for name, data_sets in domains.items()}
    seen = segmentor.prototypes.seen.cpu().numpy()
    prototypes = segmentor.prototypes.mean.float().cpu().numpy()[seen]
    found["prototypes"] = (prototypes, np.flatnonzero(seen), np.zeros(len(prototypes)))
    found = {name: points for name, points in found.items() if len(points[0])}
    places = _in_a_plane(np.concatenate([means for means, *_ in found.values()]), method)
    parts = np.split(places, np.cumsum([len(means) for means, *_ in found.values()])[:-1])
    markers = {"source pixels": "o", "target pixels": "^", "prototypes": "*"}
    return [
        Points(name, markers[name], part, classes, uncertainty)
        for part, (name, (_, classes, uncertainty)) in zip(parts, found.items())
    ]


def _in_a_plane(means: np.ndarray, method: str) -> np.ndarray:
    """Means ``(P, D)`` as ``(P, 2)``."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "pca":
        return PCA(2, random_state=0).fit_transform(means)
    perplexity = min(30, (len(means) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(means)


@torch.no_grad()
def _pixels(
    model: Predictor, data_sets: Sequence[str], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means ``(P, D)``, predicted classes and uncertainties ``(P,)`` of drawn pixels."""
    segmentor = model.model
    records = [record for name in data_sets for record in list_records(name)]
    parts = []
    for index in np.linspace(0, len(records) - 1, min(IMAGES, len(records))).astype(int):
        record = records[index] | {"intensities": model.cfg.INPUT.INTENSITIES or None}
        image = model.mapper(record)["image"].to(segmentor.device).float()[None]
        output = segmentor.predicting_output(image, embedding=True)
        size = output.mean.shape[-2:]
        classes = segmentor.scores(output.logits, size, record["file_name"])[0].argmax(0).flatten()
        uncertainty = segmentor.uncertainty(output, size)["uncertainty"].flatten()
        classes, uncertainty = classes.cpu().numpy(), uncertainty.float().cpu().numpy()
        means = output.mean[0].flatten(1).T.float().cpu().numpy()
        places = [np.flatnonzero(classes == one) for one in np.unique(classes)]
        chosen = np.concatenate([random.permutation(part)[:PIXELS] for part in places])
        parts.append((means[chosen], classes[chosen], uncertainty[chosen]))
    if not parts:
        return np.empty((0, 0)), np.empty(0, int), np.empty(0)
    means, classes, uncertainty = (np.concatenate(values) for values in zip(*parts))
    return means, classes, uncertainty
