"""The distance of features to those of an ImageNet encoder, on things (DAFormer, arXiv 2111.14887).

Shapes: N images, H x W pixels, h x w positions of a feature map of C channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The paper's, of Cityscapes' classes.
THINGS = (
    "traffic light", "traffic sign", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip


def filled_positions(
    label: Tensor, classes: Sequence[int], size: Sequence[int], min_share: float
) -> Tensor:
    """Positions of a feature map below which one of some classes fills a share of the pixels or more.

    Args:
        label: ``(N, H, W)`` train IDs.
        classes: train IDs.
        size: (h, w).
        min_share: above 0.5, as published, no other class can have as many pixels.

    Returns:
        ``(N, h, w)`` bool.

    Examples:
        >>> label = torch.tensor([[[7, 7, 7, 0], [7, 0, 0, 0]]])
        >>> filled_positions(label, [7], (1, 2), min_share=0.75)
        tensor([[[ True, False]]])
    """
    height, width = size
    shares = (F.adaptive_avg_pool2d((label == one).float(), (height, width)) for one in classes)
    return (torch.stack(list(shares)) >= min_share).any(0)


@dataclass
class FeatureDistance:
    """Keeps the encoder's features of things as they were before training (equations 8 to 11).

    Args:
        encoder: the frozen one, images ``(N, 3, H, W)`` in [0, 255] to its last feature map ``(N, C, h, w)``.
        classes: train IDs of things.
        min_share: see :func:`filled_positions`.
        loss_weight: of the distance.
        num_processes: that share the batch, and average their gradients.
        total: of counts over these processes.

    Examples:
        >>> distance = FeatureDistance(lambda image: torch.zeros(1, 2, 1, 1), [7], loss_weight=0.5)
        >>> features, label = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.full((1, 8, 8), 7)
        >>> distance(features, torch.zeros(1, 3, 8, 8), label)
        tensor(2.5000)
    """

    encoder: Callable[[Tensor], Tensor]
    classes: Sequence[int]
    min_share: float = 0.75
    loss_weight: float = 0.005
    num_processes: int = 1
    total: Callable[[Tensor], Tensor] = lambda counts: counts

    def __call__(self, features: Tensor, image: Tensor, label: Tensor) -> Tensor:
        """The mean Euclidean distance at things; 0 where there are none.

        Args:
            features: ``(N, C, h, w)``, the trained encoder's.
            image: ``(N, 3, H, W)`` of which they are.
            label: ``(N, H, W)`` train IDs.
        """
        with torch.no_grad():
            reference = self.encoder(image).float()
        things = filled_positions(label, self.classes, features.shape[-2:], self.min_share)
        distance = torch.linalg.vector_norm(features.float() - reference, dim=1)
        number = self.total(things.sum()).clamp(min=1) / self.num_processes
        return self.loss_weight * (distance * things).sum() / number
