"""The ambiguity-guided crop: train on the part of a target image that is hardest to tell.

Shapes: N images, C classes, D embedding dimensions, H x W pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .labeled_pixels import count_labels, resize_labels
from .prototypes import GaussianPrototypes

#: The score of the box of these rows and columns, the higher the better.
Score = Callable[[tuple[slice, slice]], Tensor]
#: What boxes are chosen by.
CRITERIA = ("random", "class_variance", "class_entropy", "pixel_entropy")


def class_ambiguity_weights(log_var: Tensor, temperature: float, top_k: int) -> Tensor:
    """How much a pixel of each class counts (arXiv 2409.18543).

    Args:
        log_var: ``(C, D)`` of the prototypes. Classes at minus infinity take no part.
        temperature: of the softmax over the classes' means.
        top_k: the number of classes that count, the most ambiguous ones.

    Returns:
        ``(C,)`` float32, 0 outside the top k; all 0 where no class takes part.

    Examples:
        >>> log_var = torch.tensor([[-5.0, -5.0], [-4.0, -4.0], [-torch.inf, -torch.inf]])
        >>> class_ambiguity_weights(log_var, temperature=1.0, top_k=2)
        tensor([0.2689, 0.7311, 0.0000])
    """
    ambiguity = log_var.float().mean(dim=1)
    # Of minus infinities alone the softmax is not a number.
    weights = torch.softmax(ambiguity / temperature, dim=0).masked_fill(ambiguity.isneginf(), 0)
    top = weights.topk(min(top_k, len(weights)))
    return torch.zeros_like(weights).scatter_(0, top.indices, top.values)


def pixel_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each pixel's class probabilities, nats.

    Args:
        probabilities: ``(C, h, w)``, not necessarily of sum 1.

    Returns:
        ``(h, w)``.

    Examples:
        >>> pixel_entropy(torch.tensor([[0.5, 1.0], [0.5, 0.0]]).view(2, 1, 2))
        tensor([[0.6931, 0.0000]])
    """
    probabilities = probabilities / probabilities.sum(0)
    return torch.special.entr(probabilities).sum(0)


def class_entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of the pixels of an image for which each class is the most probable, nats.

    It does not depend on how many pixels a class has.

    Args:
        probabilities: ``(C, h, w)``.

    Returns:
        ``(C,)``, 0 for a class without a pixel.

    Examples:
        >>> sure, unsure = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.51])
        >>> class_entropy(torch.stack([sure, sure, unsure], dim=1).view(2, 1, 3))
        tensor([0.0000, 0.6931])
    """
    label, entropy = probabilities.argmax(0).flatten(), pixel_entropy(probabilities).flatten()
    # Unlike bincount, this does not wait for a GPU.
    sums = entropy.new_zeros(2, len(probabilities))
    sums.index_add_(1, label, torch.stack([entropy, torch.ones_like(entropy)]))
    return sums[0] / sums[1].clamp(min=1)


def crop_score(label: Tensor, weights: Tensor) -> Tensor:
    """Sum of the pixels' weights; labels outside the classes count nothing.

    Args:
        label: ``(h, w)`` of an integer type.
        weights: ``(C,)``.

    Examples:
        >>> label = torch.tensor([[0, 0, 1], [1, 1, 255]])
        >>> crop_score(label, weights=torch.tensor([0.5, 2.0]))
        tensor(7.)
    """
    return (weights * count_labels(label, len(weights))).sum()


class ChosenBox(NamedTuple):
    """A box of an image, and how it was chosen.

    Examples:
        >>> (box,) = choose_boxes([None], (8, 8), (8, 8), 10, torch.Generator())
        >>> box.corner, box.by_chance
        ((0, 0), True)
    """

    corner: tuple[int, int]  # (top, left), pixels
    by_chance: bool  # no candidate scored above another
    gain: float  # its score over the mean of the candidates'; 1 where that is 0


def choose_boxes(
    scores: Sequence[Score | None],
    image_size: tuple[int, int],
    box_size: tuple[int, int],
    num_candidates: int,
    generator: torch.Generator,
) -> list[ChosenBox]:
    """For each image the best of some random boxes, the first of equals.

    The scores of all images are read from the device at once.

    Args:
        scores: of a box of each image; None: all are alike.
        image_size, box_size: (height, width), pixels.
        num_candidates: how many boxes to draw; without a score one is.
        generator: of the boxes, on the CPU.

    Raises:
        ValueError: the box is larger than the image.

    Examples:
        >>> ambiguity = torch.zeros(8, 8)
        >>> ambiguity[4:, 4:] = 1.0  # at the lower right
        >>> generator = torch.Generator().manual_seed(0)
        >>> (box,) = choose_boxes([lambda box: ambiguity[box].sum()], (8, 8), (4, 4), 20, generator)
        >>> box.corner
        (4, 4)
    """
    (height, width), (box_height, box_width) = image_size, box_size
    if box_height > height or box_width > width:
        raise ValueError(
            f"a crop of {box_height}x{box_width} does not fit in an image of {height}x{width}"
        )

    def drawn(offset: int) -> int:
        return int(torch.randint(offset + 1, (), generator=generator))

    def candidate() -> tuple[int, int]:
        return drawn(height - box_height), drawn(width - box_width)

    known = [score for score in scores if score is not None]
    if not known:
        return [ChosenBox(candidate(), by_chance=True, gain=1.0) for _ in scores]
    corners = [[candidate() for _ in range(num_candidates)] for _ in known]
    values = [
        score((slice(y, y + box_height), slice(x, x + box_width)))
        for score, of_image in zip(known, corners)
        for y, x in of_image
    ]
    boxes = []
    for of_image, found in zip(corners, torch.stack(values).view(len(known), -1).tolist()):
        best, mean = max(found), sum(found) / len(found)
        corner = of_image[found.index(best)]
        boxes.append(ChosenBox(corner, min(found) == best, best / mean if mean > 0 else 1.0))
    return boxes


def _sum_of(values: Tensor) -> Score:
    return lambda box: values[box].sum()


def _sum_of_weights(label: Tensor, weights: Tensor) -> Score:
    return lambda box: crop_score(label[box], weights)


@dataclass
class AmbiguityCrop:
    """Of each target image the most ambiguous of some random boxes (arXiv 2409.18543).

    Args:
        size: (height, width) of the boxes, pixels.
        num_candidates: boxes drawn in each image; 1: a random crop.
        temperature: of the softmax over the classes' variances.
        top_k: the number of classes that count by their variance.
        criterion: what boxes are chosen by. "class_variance": the sum over their pixels of the
            weight that the variance of its prototype gives to the pixel's class, as published.
            "class_entropy": that of the classes' entropy in the image. "pixel_entropy": that of the
            pixels' own. "random": nothing, so that one box is drawn and nothing labeled.

    Attributes:
        statistics: of the last call. "by_chance": the share of boxes that scored no better than the
            others. "gain": the chosen box's score over the candidates' mean, averaged over the
            images. "weights_entropy": the entropy of all classes' weights by their prototypes'
            variance, over log C, a tensor: 1 where they are equal, 0 where one class has all, no number
            where no class has a prototype; absent without prototypes.

    Raises:
        ValueError: the criterion is unknown.

    Examples:
        >>> prototypes = GaussianPrototypes(num_classes=2, dim=1)
        >>> prototypes.num_updates += 1  # as if both classes had been seen
        >>> prototypes.log_var[1] = 0.02  # class 1 is the more ambiguous one
        >>> crop = AmbiguityCrop(size=(4, 4), num_candidates=20)
        >>> crop.class_weights(prototypes)
        tensor([0.1192, 0.8808])
        >>> probabilities = torch.zeros(1, 2, 8, 8)  # of one image
        >>> probabilities[:, 1, 4:, 4:] = 1.0  # its lower right is of class 1
        >>> crop((8, 8), 1, prototypes, lambda: probabilities, torch.Generator().manual_seed(0))
        [(4, 4)]
    """

    size: tuple[int, int]
    num_candidates: int = 10
    temperature: float = 0.01
    top_k: int = 10
    criterion: str = "class_variance"
    statistics: dict[str, float | Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion is {self.criterion!r}: use one of {CRITERIA}")

    def __call__(
        self,
        image_size: tuple[int, int],
        num_images: int,
        prototypes: GaussianPrototypes | None,
        probabilities: Callable[[], Tensor],
        generator: torch.Generator,
    ) -> list[tuple[int, int]]:
        """The (top, left) corner of each image's box, pixels.

        Args:
            image_size: (height, width) of the images, pixels.
            num_images: how many there are.
            prototypes: of the classes; without them boxes are random by "class_variance".
            probabilities: gives the teacher's ``(N, C, h, w)`` of the images, maybe of smaller ones;
                not called where boxes are random.
            generator: of the boxes, on the CPU.

        Raises:
            ValueError: the crop is larger than an image.
        """
        scores: Sequence[Score | None] = [None] * num_images
        if self.chooses(prototypes):
            scores = self._scores(image_size, prototypes, probabilities())
        boxes = choose_boxes(scores, image_size, self.size, self.num_candidates, generator)
        self.statistics = {
            "by_chance": sum(box.by_chance for box in boxes) / len(boxes),
            "gain": sum(box.gain for box in boxes) / len(boxes),
        }
        if prototypes is not None:
            weights = self.class_weights(prototypes, top_k=len(prototypes.seen))
            entropy = torch.special.entr(weights).sum() / math.log(len(weights))
            self.statistics["weights_entropy"] = entropy.where(prototypes.seen.any(), torch.nan)
        return [box.corner for box in boxes]

    def chooses(self, prototypes: GaussianPrototypes | None) -> bool:
        """Whether boxes are chosen by something, not drawn."""
        if self.criterion == "random" or self.num_candidates == 1:
            return False
        return prototypes is not None or self.criterion != "class_variance"

    def _scores(
        self,
        image_size: tuple[int, int],
        prototypes: GaussianPrototypes | None,
        probabilities: Tensor,
    ) -> list[Score]:
        """For each image the score of its boxes."""
        if self.criterion == "pixel_entropy":
            entropies = torch.stack([pixel_entropy(one) for one in probabilities])[:, None]
            entropies = F.interpolate(entropies, image_size, mode="nearest")[:, 0]
            return [_sum_of(one) for one in entropies]
        if self.criterion == "class_entropy":
            weights = [class_entropy(one) for one in probabilities]
        else:
            assert prototypes is not None
            weights = [self.class_weights(prototypes)] * len(probabilities)
        labels = resize_labels(probabilities.argmax(1), image_size)
        return list(map(_sum_of_weights, labels, weights))

    def class_weights(self, prototypes: GaussianPrototypes, top_k: int | None = None) -> Tensor:
        """How much a pixel of each class counts by the variance of its prototype, ``(C,)``.

        Args:
            prototypes: of the classes; one without a prototype counts 0.
            top_k: the number of classes that count, if it is another one.
        """
        log_var = prototypes.log_var.masked_fill(~prototypes.seen[:, None], -torch.inf)
        return class_ambiguity_weights(log_var, self.temperature, top_k or self.top_k)
