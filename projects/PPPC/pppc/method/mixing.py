"""ClassMix and strong augmentation: pure functions of tensors and a random generator.

Shapes: N images, H x W pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
import torchvision.transforms.v2.functional as TF
from detectron2.utils import comm
from torch import Tensor

__all__ = ["Gates", "StrongAugmentation", "class_mix", "class_mix_mask"]

BLUR_SIGMA = (0.15, 1.15)  # pixels, as published


def class_mix_mask(label: Tensor, generator: torch.Generator) -> Tensor:
    """For each image, the pixels of half of the batch's classes (ClassMix, arXiv 2007.07936).

    The batch is that of all processes.

    Args:
        label: ``(N, H, W)`` in [0, 255]. Every value counts as a class, the ignore label too, as
            published.
        generator: of the choice, on the CPU.

    Returns:
        ``(N, H, W)`` bool.

    Examples:
        >>> label = torch.tensor([[[0, 1], [2, 3]]])
        >>> class_mix_mask(label, torch.Generator().manual_seed(0)).sum()  # two of four classes
        tensor(2)
    """
    counts = torch.bincount(label.flatten(), minlength=256)
    if comm.get_world_size() > 1:
        dist.all_reduce(counts)
    classes = counts.nonzero()[:, 0]
    half = (len(classes) + 1) // 2
    return torch.stack(
        [
            torch.isin(one, classes[torch.randperm(len(classes), generator=generator)[:half]])
            for one in label
        ]
    )


def class_mix(image_a: Tensor, image_b: Tensor, mask: Tensor) -> Tensor:
    """Take ``image_a`` where ``mask`` is 1, ``image_b`` elsewhere.

    Args:
        image_a, image_b: images ``(N, 3, H, W)``, or labels or weights ``(N, H, W)``; for one image
            also without N.
        mask: ``(N, H, W)`` or ``(N, 1, H, W)``, bool or 0 and 1; for one image also without N.

    Returns:
        a tensor of the shape of ``image_a``.

    Examples:
        >>> mask = torch.tensor([[[True, False], [False, True]]])
        >>> class_mix(torch.ones(1, 2, 2), torch.zeros(1, 2, 2), mask)
        tensor([[[1., 0.],
                 [0., 1.]]])
    """
    channels = [1] * (image_a.dim() - 3)
    mask = mask.bool().reshape(-1, *channels, *mask.shape[-2:])
    return torch.where(mask, image_a, image_b).reshape(image_a.shape)


class Gates(NamedTuple):
    """Whether this iteration's strong augmentation changes colors, and whether it blurs.

    Examples:
        >>> Gates(jitter=True, blur=False)
        Gates(jitter=True, blur=False)
    """

    jitter: bool
    blur: bool


class StrongAugmentation:
    """Color jitter and Gaussian blur, as in DACS (arXiv 2007.08702).

    Args:
        jitter_strength: brightness, contrast and saturation change by a factor within 1 +- this,
            the hue by at most this share of the color circle.
        jitter_probability: how often colors change.
        blur_probability: how often images are blurred.

    Examples:
        >>> augmentation, generator = StrongAugmentation(), torch.Generator().manual_seed(0)
        >>> gates = augmentation.draw_gates(generator)
        >>> gates
        Gates(jitter=True, blur=False)
        >>> augmentation(torch.full((1, 3, 4, 4), 100.0), gates, generator)[0, :, 0, 0].round()
        tensor([84., 84., 84.])
    """

    def __init__(
        self,
        jitter_strength: float = 0.2,
        jitter_probability: float = 0.8,
        blur_probability: float = 0.5,
    ):
        self.jitter_strength = jitter_strength
        self.jitter_probability = jitter_probability
        self.blur_probability = blur_probability

    def draw_gates(self, generator: torch.Generator) -> Gates:
        """Draw what happens in an iteration, alike for all its passes."""
        jitter, blur = torch.rand(2, generator=generator).tolist()
        return Gates(jitter < self.jitter_probability, blur < self.blur_probability)

    def __call__(self, image: Tensor, gates: Gates, generator: torch.Generator) -> Tensor:
        """New images; by how much each is changed is drawn for it alone.

        Args:
            image: ``(N, 3, H, W)`` float RGB in [0, 255].
            gates: what to do.
            generator: of the amounts, on the CPU.

        Returns:
            ``(N, 3, H, W)`` in [0, 255].
        """
        augmented = []
        for one in image:
            if gates.jitter:
                one = 255 * self._jitter(one / 255, generator)
            if gates.blur:
                one = _blur(one, generator)
            augmented.append(one)
        return torch.stack(augmented)

    def _jitter(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Change the colors of ``(3, H, W)`` in [0, 1], in a random order."""
        amounts = self.jitter_strength * (2 * torch.rand(4, generator=generator) - 1)
        brightness, contrast, saturation, hue = amounts.tolist()
        changes = [
            (TF.adjust_brightness, 1 + brightness),
            (TF.adjust_contrast, 1 + contrast),
            (TF.adjust_saturation, 1 + saturation),
            (TF.adjust_hue, hue),
        ]
        for index in torch.randperm(len(changes), generator=generator).tolist():
            adjust, amount = changes[index]
            image = adjust(image, amount)
        return image


def _blur(image: Tensor, generator: torch.Generator) -> Tensor:
    low, high = BLUR_SIGMA
    sigma = low + (high - low) * float(torch.rand((), generator=generator))
    # Four standard deviations on each side hold all but 0.0001 of the weight. The published kernel,
    # 63 pixels wide at 640, gives the same picture to 0.001 of 255 in ten times the time.
    return TF.gaussian_blur(image, 2 * math.ceil(4 * sigma) + 1, sigma)
