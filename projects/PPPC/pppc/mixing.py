"""ClassMix and strong augmentation: pure functions of tensors and a random generator.

Shapes: N images of H x W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

__all__ = ["Gates", "StrongAugmentation", "class_mix", "class_mix_mask"]

BLUR_SIGMA = (0.15, 1.15)  # pixels, as published


def class_mix_mask(label: Tensor, generator: torch.Generator) -> Tensor:
    """For each image, the pixels of half of the classes in the batch (ClassMix, arXiv 2007.07936).

    Args:
        label: ``(N, H, W)``. Every value counts as a class, the ignore label too, as published.
        generator: of the choice.

    Returns:
        ``(N, H, W)`` bool.
    """
    classes = label.unique()
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
        image_a, image_b: images ``(N, 3, H, W)`` or labels ``(N, H, W)``; also without N.
        mask: ``(N, H, W)`` or ``(N, 1, H, W)``; also without N.
    """
    mask = mask.bool()
    if image_a.dim() > mask.dim():
        mask = mask.unsqueeze(-3)
    return torch.where(mask, image_a, image_b)


class Gates(NamedTuple):
    """Whether this iteration's strong augmentation changes colors, and whether it blurs."""

    jitter: bool
    blur: bool


class StrongAugmentation:
    """Color jitter and Gaussian blur (DACS), on images in [0, 255].

    Args:
        jitter_strength: brightness, contrast and saturation change by a factor within 1 +- this,
            the hue by at most this share of the color circle.
        jitter_probability: how often colors change.
        blur_probability: how often images are blurred.
    """

    def __init__(
        self, jitter_strength: float, jitter_probability: float, blur_probability: float
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
            image: ``(N, 3, H, W)`` float in [0, 255].
            gates: what to do.
            generator: of the amounts.
        """
        augmented = []
        for one in image / 255:
            if gates.jitter:
                one = self._jitter(one, generator)
            if gates.blur:
                one = _blur(one, generator)
            augmented.append(one)
        return 255 * torch.stack(augmented)

    def _jitter(self, image: Tensor, generator: torch.Generator) -> Tensor:
        *factors, hue = (
            self.jitter_strength * (2 * torch.rand(4, generator=generator) - 1)
        ).tolist()
        changes = [
            lambda x: TF.adjust_brightness(x, 1 + factors[0]),
            lambda x: TF.adjust_contrast(x, 1 + factors[1]),
            lambda x: TF.adjust_saturation(x, 1 + factors[2]),
            lambda x: TF.adjust_hue(x, hue),
        ]
        for index in torch.randperm(len(changes), generator=generator).tolist():
            image = changes[index](image)
        return image


def _blur(image: Tensor, generator: torch.Generator) -> Tensor:
    low, high = BLUR_SIGMA
    sigma = low + (high - low) * float(torch.rand((), generator=generator))
    # Four standard deviations on each side: beyond, the weights are below 0.0004 of the peak. The
    # published kernel is a tenth of the image, 63 pixels at 640, and gives the same picture.
    radius = min(int(4 * sigma + 0.5) or 1, min(image.shape[-2:]) - 1)
    return TF.gaussian_blur(image, 2 * radius + 1, sigma)
