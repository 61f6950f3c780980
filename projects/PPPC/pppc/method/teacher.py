"""The teacher: moving average of the student, and the pseudo-labels it gives.

Shapes: N images, C classes, H x W pixels, h x w positions of the scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

# The published day and night fusion: where the day is more probable than DAY_CONFIDENCE, its share
# is TRUSTED_SHARE, otherwise the night's is.
DAY_CONFIDENCE = 0.4
TRUSTED_SHARE = 0.8


def teacher_momentum(iteration: int, momentum: float) -> float:
    """The teacher's share in its update: the plain average of all students, then ``momentum``.

    It is 0 at iteration 0, which makes the teacher a copy of the student.

    Examples:
        >>> [teacher_momentum(iteration, 0.999) for iteration in (0, 1, 9, 5000)]
        [0.0, 0.5, 0.9, 0.999]
    """
    return min(1 - 1 / (iteration + 1), momentum)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, in place.

    That is for the parameters; buffers are copied. The published code never updates the teacher's
    BatchNorm running statistics: its teacher normalizes by the batch and does not need them, but
    in evaluation mode it would normalize by statistics of other weights.

    Examples:
        >>> teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(teacher.weight), nn.init.ones_(student.weight)
        >>> update_teacher(teacher, student, momentum=0.9)
        >>> teacher.weight.data
        tensor([[0.1000]])
    """
    average = get_ema_multi_avg_fn(momentum)
    average(list(teacher.parameters()), list(student.parameters()), None)
    buffers = list(zip(teacher.buffers(), student.buffers(), strict=True))
    for floating in (True, False):  # of one type, a GPU copies all of them at once
        if alike := [pair for pair in buffers if pair[0].is_floating_point() == floating]:
            torch._foreach_copy_([pair[0] for pair in alike], [pair[1] for pair in alike])


class PseudoLabel(NamedTuple):
    """What the teacher says of target images.

    Examples:
        >>> probabilities = torch.tensor([0.1, 0.9]).view(1, 2, 1, 1)
        >>> pseudo = pseudo_label(probabilities, threshold=0.8)
        >>> pseudo.label, pseudo.confidence, pseudo.confident_share
        (tensor([[[1]]]), tensor([[[0.9000]]]), tensor(1.))
    """

    label: Tensor  # (N, H, W) int64, the most probable class
    confidence: Tensor  # (N, H, W) float32, its probability
    confident_share: Tensor  # () float32, of the pixels of the whole batch


def upsampled_probabilities(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Class scores ``(N, C, h, w)`` to probabilities ``(N, C, H, W)`` at ``size`` (H, W).

    Examples:
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
        >>> upsampled_probabilities(logits, (1, 4))[0, 1]
        tensor([[0.5000, 0.6225, 0.8176, 0.8808]])
    """
    logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    return logits.softmax(dim=1)


def pseudo_label(
    probabilities: Tensor,
    threshold: float,
    total: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> PseudoLabel:
    """The most probable classes, and how many of them are trusted (DACS, arXiv 2007.08702).

    Args:
        probabilities: ``(N, C, H, W)``.
        threshold: the probability from which on a pixel counts as confident.
        total: of counts over the processes that share the batch.

    Examples:
        >>> probabilities = torch.tensor([[0.9, 0.4], [0.1, 0.6]]).view(1, 2, 1, 2)  # of two pixels
        >>> pseudo = pseudo_label(probabilities, threshold=0.8)
        >>> pseudo.label, pseudo.confident_share
        (tensor([[[0, 1]]]), tensor(0.5000))
    """
    confidence, label = probabilities.max(dim=1)
    confident = confidence >= threshold
    counts = total(torch.stack([confident.sum(), torch.ones_like(confident).sum()]))
    return PseudoLabel(label, confidence, counts[0] / counts[1])


def pixel_weights(pseudo: PseudoLabel, ignore_top: int, ignore_bottom: int) -> Tensor:
    """The share of confident pixels at every pixel, 0 on the first and last rows: ``(N, H, W)`` float32.

    Examples:
        >>> label = torch.zeros(1, 4, 1, dtype=torch.long)
        >>> pseudo = PseudoLabel(label, torch.ones(1, 4, 1), confident_share=torch.tensor(0.5))
        >>> pixel_weights(pseudo, ignore_top=1, ignore_bottom=2).flatten()
        tensor([0.0000, 0.5000, 0.0000, 0.0000])
    """
    weight = pseudo.confident_share.repeat(pseudo.label.shape)
    height = weight.shape[1]
    weight[:, :ignore_top] = 0
    weight[:, max(height - ignore_bottom, 0) :] = 0
    return weight


def fuse_day_night(
    day: Tensor,
    night: Tensor,
    static_classes: Sequence[int],
    class_weights: Tensor | None = None,
) -> Tensor:
    """Let a daytime image of the same place help to label the night's static classes.

    Args:
        day, night: probabilities ``(N, C, H, W)``.
        static_classes: train IDs of what stays where it is (road, building, sky, ...).
        class_weights: ``(C,)`` factors of the fused probabilities.

    Returns:
        ``(N, C, H, W)``: for a static class 0.8 day + 0.2 night where the day's probability is
        above 0.4, else 0.2 day + 0.8 night; for the others the night's. Times the class weights,
        not normalized again.

    Examples:
        >>> day = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)
        >>> night = torch.tensor([0.2, 0.8]).view(1, 2, 1, 1)
        >>> fuse_day_night(day, night, static_classes=[0]).flatten()  # 0.8 day + 0.2 night, and night
        tensor([0.7600, 0.8000])
    """
    static = list(static_classes)
    day_share = torch.zeros_like(night)
    day_share[:, static] = torch.where(
        day[:, static] > DAY_CONFIDENCE, TRUSTED_SHARE, 1 - TRUSTED_SHARE
    ).to(night.dtype)
    fused = day_share * day + (1 - day_share) * night
    return fused if class_weights is None else fused * class_weights.view(-1, 1, 1)


@dataclass
class PseudoLabeler:
    """Labels target images by a teacher, with the help of their day images if they come.

    Args:
        threshold: the probability from which on a pixel counts as confident.
        ignore_top, ignore_bottom: rows whose labels are ignored (sky and bonnet).
        ignore_label: the label of pixels without one.
        static_classes: train IDs of the classes that day images help with.
        class_weights: ``(C,)`` factors of probabilities that a day image helped with; None: 1.
        total: of counts over the processes that share the batch.

    Examples:
        >>> teacher = lambda image: torch.stack([image[:, 0], 255 - image[:, 0]], 1)  # bright: 0
        >>> image = torch.tensor([0.0, 255.0]).view(1, 1, 2, 1).expand(1, 3, 2, 1)
        >>> pseudo, weight = PseudoLabeler(ignore_bottom=1)(teacher, image)
        >>> pseudo.label.flatten(), weight.flatten()
        (tensor([  1, 255]), tensor([1., 0.]))
    """

    threshold: float = 0.968
    ignore_top: int = 0
    ignore_bottom: int = 0
    ignore_label: int = 255
    static_classes: Sequence[int] = ()
    class_weights: Tensor | None = None
    total: Callable[[Tensor], Tensor] = lambda counts: counts

    @torch.no_grad()
    def probabilities(
        self,
        teacher: Callable[[Tensor], Tensor],
        image: Tensor,
        day_image: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """What the teacher says of every pixel, ``(N, C, scale * H, scale * W)``.

        Args:
            teacher: images ``(N, 3, H, W)`` to class scores ``(N, C, h, w)``.
            image: ``(N, 3, H, W)``.
            day_image: ``(N, 3, H, W)`` of the same places by day, or None.
            scale: to which they are resized.
        """

        def of(image: Tensor) -> Tensor:
            if scale != 1:
                image = F.interpolate(image, scale_factor=scale, mode="bilinear", antialias=True)
            return upsampled_probabilities(teacher(image), image.shape[-2:])

        if day_image is None:
            return of(image)
        return fuse_day_night(of(day_image), of(image), self.static_classes, self.class_weights)

    def __call__(
        self,
        teacher: Callable[[Tensor], Tensor],
        image: Tensor,
        day_image: Tensor | None = None,
        probabilities: Tensor | None = None,
    ) -> tuple[PseudoLabel, Tensor]:
        """The teacher's labels, ignored where they have no weight, and their weights ``(N, H, W)``.

        ``probabilities`` are what it says, if that is known already.
        """
        if probabilities is None:
            probabilities = self.probabilities(teacher, image, day_image)
        pseudo = pseudo_label(probabilities, self.threshold, self.total)
        weight = pixel_weights(pseudo, self.ignore_top, self.ignore_bottom)
        label = pseudo.label.masked_fill(weight == 0, self.ignore_label)
        return pseudo._replace(label=label), weight
