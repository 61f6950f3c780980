"""Masked image consistency (MIC, arXiv 2212.01322): the target with most of it hidden.

Shapes: N images, H x W pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .mixing import StrongAugmentation


def block_mask(image: Tensor, size: int, ratio: float, generator: torch.Generator) -> Tensor:
    """For each image, the pixels of blocks that are hidden, each with the same probability.

    Args:
        image: ``(N, C, H, W)``, for its shape.
        size: side of a block, pixels; where H or W is no multiple of it, blocks are as near to it as can be.
        ratio: the probability.
        generator: of the choice, on the CPU.

    Returns:
        ``(N, H, W)`` bool.

    Examples:
        >>> mask = block_mask(torch.zeros(1, 3, 4, 6), 2, 0.5, torch.Generator().manual_seed(1))
        >>> mask.int()
        tensor([[[0, 0, 1, 1, 1, 1],
                 [0, 0, 1, 1, 1, 1],
                 [0, 0, 1, 1, 0, 0],
                 [0, 0, 1, 1, 0, 0]]], dtype=torch.int32)
    """
    height, width = image.shape[-2:]
    grid = [max(round(side / size), 1) for side in (height, width)]
    hidden = torch.rand(len(image), 1, *grid, generator=generator) < ratio
    hidden = hidden.to(image.device, non_blocking=True).float()
    return F.interpolate(hidden, (height, width), mode="nearest")[:, 0].bool()


@dataclass
class Masking:
    """What a masked image is, and what its loss counts.

    Args:
        augmentation: strong augmentation; whether it changes colors is drawn anew for these images.
        block_size: side of a block, pixels.
        ratio: the share of the blocks that is hidden.
        loss_weight: of the cross-entropy of masked images.

    Examples:
        >>> masking = Masking(StrongAugmentation(), block_size=32, ratio=0.5)
        >>> image, gray = torch.zeros(1, 3, 128, 128), torch.full((3, 1, 1), 127.0)
        >>> masked = masking(image, gray, torch.Generator().manual_seed(0))
        >>> (masked == gray).float().mean()
        tensor(0.5625)
    """

    augmentation: StrongAugmentation
    block_size: int
    ratio: float = 0.7
    loss_weight: float = 1.0

    def __call__(self, image: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
        """New images.

        Args:
            image: ``(N, 3, H, W)`` in [0, 255].
            fill: ``(3, 1, 1)``, the color of what is hidden.
            generator: of all that is drawn, on the CPU.
        """
        image = self.augmentation(image, self.augmentation.draw_gates(generator), generator)
        mask = block_mask(image, self.block_size, self.ratio, generator)
        return torch.where(mask[:, None], fill, image)
