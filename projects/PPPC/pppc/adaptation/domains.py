"""How far a target domain is from the source, by images alone and by what a source-only model says of them.

Shapes: N images, D dimensions of the encoder's last features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from detectron2.modeling import build_model
from tqdm import tqdm

from ..checkpoints.checkpointer import StrictCheckpointer
from ..config import get_config_file
from ..config.device import with_inference_device
from ..config.files import read_settings, settings_to_config
from ..data.images import read_image
from ..errors import InputError
from ..modeling.network import SegmentationNetwork
from ..prediction import Predictor

ENCODER = ("Base-Small.yaml", "models/efficientnet_lite0.yaml")
SIDE = 256  # pixels of the shortest side, for the encoder
POSITIONS = 16  # of an image's features, for the distance
FOLDS = 5
#: What is compared of colors: the mean of gray, its standard deviation, the mean saturation, all in percent.
COLORS = ("brightness", "contrast", "saturation")


@dataclass
class Domain:
    """What is known of a domain's images.

    Attributes:
        sizes: (height, width) of each, pixels.
        colors: ``(N, 3)``, see COLORS.
        features: of the encoder, the mean over an image, ``(N, D)``.
        positions: the same at some positions of each image, ``(N, POSITIONS, D)``.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    colors: list[np.ndarray] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)


def imagenet_encoder() -> SegmentationNetwork:
    """EfficientNet-Lite0 with ImageNet weights, in a network whose decoder is random.

    Raises:
        InputError: the weights are not at hand; the message says how to get them.
    """
    settings: dict[str, object] = {}
    for file in ENCODER:
        settings |= read_settings(get_config_file(file))
    cfg = with_inference_device(settings_to_config(settings, "the encoder"))
    model = build_model(cfg).eval()
    StrictCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    return model.student


@torch.no_grad()
def look_at(images: Sequence[str], network: SegmentationNetwork, title: str) -> Domain:
    """Sizes, colors and features of images.

    Args:
        images: files.
        network: whose backbone gives the features.
        title: for the progress bar.

    Raises:
        InputError: a file can't be read.
    """
    found = Domain()
    for number, file in enumerate(tqdm(images, desc=title, unit="image", disable=None)):
        pixels = read_image(file, "RGB")
        height, width = pixels.shape[:2]
        scale = SIDE / min(height, width)
        size = [max(32, round(scale * side / 32) * 32) for side in (width, height)]
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(small).permute(2, 0, 1)[None].to(network.pixel_mean)
        features = network.backbone((tensor - network.pixel_mean) / network.pixel_std)
        last = [*features.values()][-1][0].flatten(1).T.float().cpu().numpy()
        drawn = np.random.default_rng(number).integers(len(last), size=POSITIONS)
        found.sizes.append((height, width))
        found.colors.append(color_statistics(small))
        found.features.append(last.mean(0))
        found.positions.append(last[drawn])
    return found


def color_statistics(pixels: np.ndarray) -> np.ndarray:
    """COLORS of an image ``(H, W, 3)`` uint8, RGB.

    Examples:
        >>> color_statistics(np.full((2, 2, 3), [51, 51, 51], np.uint8)).round().tolist()
        [20.0, 0.0, 0.0]
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[:, :, 1]
    return 100 / 255 * np.array([gray.mean(), gray.std(), saturation.mean()])


def classifier_auroc(source: np.ndarray, target: np.ndarray) -> float:
    """How well a logistic regression tells the domains' images apart, by images that it has not seen.

    Args:
        source, target: features, ``(N, D)`` and ``(M, D)``.

    Returns:
        Area under the ROC curve: 0.5 they can't be told apart, 1 all can. The classifier two-sample test
        (arXiv 1610.06545), with five folds of images.

    Raises:
        InputError: a domain has one image alone, or scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise InputError("scikit-learn is not installed: pip install scikit-learn") from error

    folds = min(FOLDS, len(source), len(target))
    if folds < 2:
        raise InputError("a domain has one image: two of each at least can be compared")
    features = np.concatenate([source, target])
    is_target = np.repeat([0, 1], [len(source), len(target)])
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    )
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    scores = cross_val_predict(model, features, is_target, cv=split, method="decision_function")
    return float(roc_auc_score(is_target, scores))


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Between Gaussians of the same means and covariances as two samples ``(N, D)``, ``(M, D)``.

    ``(m1 - m2)^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Heusel et al., arXiv 1706.08500).

    Examples:
        >>> sample = np.random.default_rng(0).normal(size=(100, 3))
        >>> round(frechet_distance(sample, sample + [2, 0, 0]), 6)
        4.0
    """
    mean = first.mean(0) - second.mean(0)
    one, other = (
        np.cov(sample, rowvar=False).reshape(2 * [sample.shape[1]]) for sample in (first, second)
    )
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    common = np.linalg.eigvalsh(root @ other @ root).clip(min=0)
    return float(mean @ mean + np.trace(one) + np.trace(other) - 2 * np.sqrt(common).sum())


def relative_distance(source: Domain, target: Domain) -> float:
    """The Fréchet distance of the domains over that of two halves of the source's images."""
    ours, theirs = np.array(source.positions), np.array(target.positions)
    half = np.random.default_rng(0).permutation(len(ours))[: len(ours) // 2]
    rest = np.setdiff1d(np.arange(len(ours)), half)
    within = frechet_distance(*(np.concatenate(ours[part]) for part in (half, rest)))
    number = min(len(half), len(theirs))  # as many images of both: a distance of few is longer
    between = frechet_distance(np.concatenate(ours[half]), np.concatenate(theirs[:number]))
    return between / max(within, 1e-9)


@dataclass(frozen=True)
class Predicted:
    """What a model predicts for images.

    Attributes:
        entropy: mean over the pixels, as a share of the highest, log C.
        shares: of all pixels that each class is predicted for, ``(C,)``.
    """

    entropy: float
    shares: np.ndarray


def predicted(model: Predictor, images: Sequence[str], title: str) -> Predicted:
    """Of images at the size at which the network sees them.

    Raises:
        InputError: a file can't be read.
    """
    entropy, counts = 0.0, torch.zeros(len(model.names), dtype=torch.float64)
    for file in tqdm(images, desc=title, unit="image", disable=None):
        scores = model(model.read_reduced(file))["sem_seg"].float()
        probabilities = scores.softmax(0)
        entropy += float(torch.special.entr(probabilities).sum(0).mean())
        counts += scores.argmax(0).flatten().bincount(minlength=len(counts)).cpu()
    highest = np.log(len(model.names))
    return Predicted(entropy / len(images) / highest, (counts / counts.sum()).numpy())
