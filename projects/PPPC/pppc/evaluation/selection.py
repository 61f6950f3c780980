"""How well a model has adapted, by scores that need no target labels.

Each is a class: its name, its sign, its formula and its source. ``SCORES`` holds one of each; the
names are those of TEST.SELECTION.SCORE and of `selection/NAME` in metrics.json. Which of them to trust is
a matter of experiment (docs/study.md).

Shapes: I images of which P pixels each are drawn, C classes, K candidates (a checkpoint's student or
teacher).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .mean_iou import confusion_matrix, intersection_over_union


@dataclass(frozen=True)
class DrawnPixels:
    """What a model says of drawn pixels of target images, and of labeled source images.

    Attributes:
        probabilities: of the classes, ``(I, P, C)``.
        source_shares: of the classes in the source's labels, ``(C,)``.
        source: of drawn source pixels the confusion matrix ``(C, C)``, rows are labels.
        held_out: whether these pixels are of images that were not trained on.
        strong: ``(I, P)`` uint8, the classes that are predicted under strong augmentation.
        former: ``(K, I, P)`` uint8, the classes of the candidates that were looked at before.
        teacher: ``(I, P)`` uint8, the teacher's classes; None where there is no teacher.
        mixed: ``(I, P)`` uint8, the classes predicted for ClassMix of two target images; None of one image.
        before_mix: ``(I, P)`` uint8, the classes predicted at the same pixels in the two images.
        alike: ``(I, P)`` bool, whether both images have the same predicted class there.
        margin: ``(I, P)``, the probability by the prototypes of the likeliest class over that of the
            second; None without prototypes.
    """

    probabilities: Tensor
    source_shares: Tensor
    source: np.ndarray
    held_out: bool
    strong: Tensor
    former: Tensor
    teacher: Tensor | None = None
    mixed: Tensor | None = None
    before_mix: Tensor | None = None
    alike: Tensor | None = None
    margin: Tensor | None = None

    @property
    def classes(self) -> Tensor:
        """The predicted classes, ``(I, P)`` uint8."""
        return self.probabilities.argmax(2).byte()

    @property
    def candidates(self) -> Tensor:
        """The classes of the model and, if there is one, of its teacher, ``(1 or 2, I, P)`` uint8."""
        return torch.stack([self.classes] + [self.teacher] * (self.teacher is not None))

    @property
    def votes(self) -> Tensor:
        """The classes of all candidates so far."""
        return torch.cat([self.former, self.candidates])

    def shares(self, classes: Tensor) -> Tensor:
        """The share of each class in some of the maps, ``(C,)``."""
        counts = classes.flatten().bincount(minlength=self.probabilities.shape[2])
        return counts / counts.sum()


class Score(ABC):
    """A number that tells how well a model has adapted.

    Attributes:
        name: in metrics.json and of TEST.SELECTION.SCORE.
        sign: 1 where more is better, -1 where less is.
    """

    name: str
    sign: int = 1

    @abstractmethod
    def __call__(self, drawn: DrawnPixels) -> float | None:
        """The score; None where the model, or the data, lack what it takes."""


def _entropy(probabilities: Tensor) -> Tensor:
    """Of the last dimension, in nats."""
    return torch.special.entr(probabilities.double()).sum(-1)


class SourceMeanIoU(Score):
    """Mean IoU of the drawn pixels of held-out source images (DATASETS.HELD_OUT), in percent.

    What people do who have nothing else. In Musgrave et al. (arXiv 2208.07360) it beats most scores.
    """

    name = "source_miou"

    def __call__(self, drawn: DrawnPixels) -> float | None:
        if not drawn.held_out:
            return None
        labeled = drawn.source.sum(1) > 0
        return 100 * float(intersection_over_union(drawn.source)[labeled].mean())


class Entropy(Score):
    """mean_n H(p_n), in nats. Morerio et al., arXiv 1711.10288.

    Self-training lowers it by itself, also where the pseudo-labels collapse.
    """

    name = "entropy"
    sign = -1

    def __call__(self, drawn: DrawnPixels) -> float:
        return float(_entropy(drawn.probabilities).mean())


class InformationMaximization(Score):
    """H(mean_n p_n) - mean_n H(p_n), in nats: sure of each pixel, and classes as frequent as each other.

    Shi and Sha, arXiv 1206.6438. No street is like that; see :class:`SourceInformationMaximization`.
    """

    name = "information_maximization"

    def __call__(self, drawn: DrawnPixels) -> float:
        mean = drawn.probabilities.double().mean((0, 1))
        return float(_entropy(mean)) - Entropy()(drawn)


class SourceInformationMaximization(Score):
    """-KL(q || mean_n p_n) - mean_n H(p_n), in nats, q the source's class shares.

    Ours. With equal shares the other way round, -KL(p || q), is the textbook's up to log C; this way a class
    that vanishes costs the more the more often the source has it. Probabilities below 1e-4 count as that.
    """

    name = "information_maximization_source"

    def __call__(self, drawn: DrawnPixels) -> float:
        shares = drawn.source_shares.double()
        mean = drawn.probabilities.double().mean((0, 1)).clamp(min=1e-4)
        divergence = (shares.xlogy(shares) - shares * mean.log()).sum()
        return -float(divergence) - Entropy()(drawn)


class SoftNeighborhoodDensity(Score):
    """Mean over the images of the entropy of each pixel's similarities to the others, in nats.

    Rows of probabilities to unit length, R; softmax of R R^T / 0.05 without its diagonal; the mean
    entropy of its rows. Saito et al., arXiv 2108.10860; like theirs for segmentation it is of 100 random
    pixels of each image, divided by their number.
    """

    name = "soft_neighborhood_density"
    PIXELS = 100
    TEMPERATURE = 0.05

    def __call__(self, drawn: DrawnPixels) -> float:
        rows = drawn.probabilities[:, : self.PIXELS].double()
        rows = torch.nn.functional.normalize(rows, dim=2)
        similarities = rows @ rows.mT / self.TEMPERATURE
        itself = torch.eye(similarities.shape[-1], dtype=torch.bool)
        return float(_entropy(similarities.masked_fill(itself, -torch.inf).softmax(2)).mean())


class MixVal(Score):
    """Share of pixels of mixed images that are predicted as they were before, in percent.

    Of pixels where the two target images are predicted alike, and of the others, apart; then the mean.
    Hu et al. (NeurIPS 2023) mix whole images by their values; ClassMix suits pixels.
    """

    name = "mixval"

    def __call__(self, drawn: DrawnPixels) -> float | None:
        if drawn.mixed is None or drawn.alike is None:
            return None
        kept = drawn.mixed == drawn.before_mix
        parts = [kept[mask] for mask in (drawn.alike, ~drawn.alike) if mask.any()]
        return 100 * sum(float(part.double().mean()) for part in parts) / len(parts)


def _agreement(first: Tensor, second: Tensor, num_classes: int) -> float:
    """Mean IoU of two class maps, over the classes that one of them has, in percent."""
    confusion = confusion_matrix(first.numpy(), second.numpy(), num_classes)
    return 100 * float(np.nanmean(intersection_over_union(confusion)))


class TeacherAgreement(Score):
    """Mean IoU of the model under strong augmentation and its teacher without, in percent.

    Ours, after FixMatch's consistency. Both can be wrong together.
    """

    name = "teacher_agreement"

    def __call__(self, drawn: DrawnPixels) -> float | None:
        if drawn.teacher is None:
            return None
        return _agreement(drawn.strong, drawn.teacher, drawn.probabilities.shape[2])


def vote(classes: Tensor, num_classes: int) -> Tensor:
    """The class that most candidates predict, ``(I, P)`` uint8; of equals the earliest candidate's.

    Args:
        classes: ``(K, I, P)`` uint8.
        num_classes: C.

    Examples:
        >>> vote(torch.tensor([[[2, 0]], [[0, 1]], [[0, 2]]], dtype=torch.uint8), num_classes=3)
        tensor([[0, 0]], dtype=torch.uint8)
    """
    classes = classes.long()
    votes = torch.stack([(classes == train_id).sum(0) for train_id in range(num_classes)])
    # NumPy's finds the first one of equals, as PyTorch's does not promise to.
    best = torch.from_numpy(votes.gather(0, classes).numpy().argmax(0, keepdims=True))
    return classes.gather(0, best)[0].byte()


class EnsembleAgreement(Score):
    """Mean IoU with the vote of all checkpoints and teachers so far, in percent.

    EnsV (Hu et al., NeurIPS 2024) with mean IoU, which is what is to be high, in the place of accuracy, and
    one vote of each candidate. Where most of them have lost a class, so has the vote.
    """

    name = "ensemble_agreement"

    def __call__(self, drawn: DrawnPixels) -> float:
        return self.of(drawn.classes, drawn.votes, drawn.probabilities.shape[2])

    @staticmethod
    def of(classes: Tensor, votes: Tensor, num_classes: int) -> float:
        """That of a candidate with the classes ``(I, P)``."""
        return _agreement(classes, vote(votes, num_classes), num_classes)


class PrototypeMargin(Score):
    """Mean over the pixels of how much likelier the first class is than the second by the prototypes.

    Ours: the probabilities are the softmax of the contrast's scores, by their temperature.
    """

    name = "prototype_margin"

    def __call__(self, drawn: DrawnPixels) -> float | None:
        return None if drawn.margin is None else float(drawn.margin.double().mean())


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        SourceMeanIoU(),
        Entropy(),
        InformationMaximization(),
        SourceInformationMaximization(),
        SoftNeighborhoodDensity(),
        MixVal(),
        TeacherAgreement(),
        EnsembleAgreement(),
        PrototypeMargin(),
    )
}
