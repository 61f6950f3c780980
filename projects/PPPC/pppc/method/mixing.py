"""Mixing and strong augmentation: pure functions of tensors and a random generator.

Shapes: N images, H x W pixels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torchvision.transforms.v2.functional as TF
from torch import Tensor

MIXES = ("class", "box")
BLUR_SIGMA = (0.15, 1.15)  # pixels, as published


def present_labels(
    label: Tensor, total: Callable[[Tensor], Tensor] = lambda counts: counts
) -> Tensor:
    """The values of labels in [0, 255], ``(K,)``, ascending. It waits for the device of the labels.

    Args:
        label: of any shape.
        total: of counts over the processes that share the batch.

    Examples:
        >>> present_labels(torch.tensor([[3, 0], [255, 3]]))
        tensor([  0,   3, 255])
    """
    return total(torch.bincount(label.flatten(), minlength=256)).nonzero()[:, 0]


def class_mix_mask(
    label: Tensor, generator: torch.Generator, classes: Tensor | None = None
) -> Tensor:
    """For each image, the pixels of half of the batch's classes (ClassMix, arXiv 2007.07936).

    Args:
        label: ``(N, H, W)`` in [0, 255]. Every value counts as a class, the ignore label too, as
            published.
        generator: of the choice, on the CPU.
        classes: of the batch, as :func:`present_labels` gives them; None: those of ``label``.

    Returns:
        ``(N, H, W)`` bool.

    Examples:
        >>> label = torch.tensor([[[0, 1], [2, 3]]])
        >>> class_mix_mask(label, torch.Generator().manual_seed(0)).sum()  # two of four classes
        tensor(2)
    """
    classes = present_labels(label) if classes is None else classes
    masks = []
    for one in label:
        order = torch.randperm(len(classes), generator=generator).to(classes.device)
        half = classes[order[: (len(classes) + 1) // 2]]
        masks.append(torch.isin(one, half.to(one.device, non_blocking=True)))
    return torch.stack(masks)


def box_mix_mask(label: Tensor, generator: torch.Generator) -> Tensor:
    """For each image, the pixels of a random box of about half of it (French et al., arXiv 1906.01916).

    Where there are two classes, ClassMix pastes all of one with holes of the other's shape, which then
    show the wrong class: a box keeps shapes and their surroundings.

    Args:
        label: ``(N, H, W)``, for its shape.
        generator: of the choice, on the CPU.

    Returns:
        ``(N, H, W)`` bool.

    Examples:
        >>> label = torch.zeros(1, 8, 8)
        >>> mask = box_mix_mask(label, torch.Generator().manual_seed(0))[0]
        >>> mask.sum(), mask.any(0).sum() * mask.any(1).sum()
        (tensor(30), tensor(30))
    """
    height, width = label.shape[-2:]
    mask = torch.zeros_like(label, dtype=torch.bool)
    for one in mask:
        rows = math.ceil(height * (0.5 + torch.rand((), generator=generator).item() / 2))
        columns = height * width // (2 * rows)
        top, left = (
            int(torch.randint(room + 1, (), generator=generator))
            for room in (height - rows, width - columns)
        )
        one[top : top + rows, left : left + columns] = True
    return mask


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


@dataclass
class StrongAugmentation:
    """Color jitter and Gaussian blur of DACS (arXiv 2007.08702), as published: with the jitter of
    kornia 0.5.8, whose brightness adds and whose contrast multiplies.

    Args:
        jitter_strength: j; to values in [0, 1] a number within +- j is added, they and the
            saturation of HSV are multiplied by one within 1 +- j each, and the hue turns by at most
            j of the color circle.
        jitter_probability: how often colors change.
        blur_probability: how often images are blurred.
        image_format: order of the images' channels, "RGB" or "BGR".

    Examples:
        >>> augmentation, generator = StrongAugmentation(), torch.Generator().manual_seed(0)
        >>> gates = augmentation.draw_gates(generator)
        >>> gates
        Gates(jitter=True, blur=False)
        >>> augmentation(torch.full((1, 3, 4, 4), 100.0), gates, generator)[0, :, 0, 0].round()
        tensor([49., 49., 49.])
    """

    jitter_strength: float = 0.2
    jitter_probability: float = 0.8
    blur_probability: float = 0.5
    image_format: str = "RGB"

    def draw_gates(self, generator: torch.Generator) -> Gates:
        """Draw what happens in an iteration, alike for all its passes."""
        jitter, blur = torch.rand(2, generator=generator).tolist()
        return Gates(jitter < self.jitter_probability, blur < self.blur_probability)

    def __call__(self, image: Tensor, gates: Gates, generator: torch.Generator) -> Tensor:
        """New images; by how much each is changed is drawn for it alone.

        Args:
            image: ``(N, 3, H, W)`` float in [0, 255].
            gates: what to do.
            generator: of the amounts, on the CPU.

        Returns:
            ``(N, 3, H, W)`` in [0, 255].
        """
        augmented = []
        for one in image:
            if gates.jitter:
                amounts = self.jitter_strength * (2 * torch.rand(4, generator=generator) - 1)
                order = torch.randperm(4, generator=generator)
                rgb = one.flip(0) if self.image_format == "BGR" else one
                rgb = 255 * _jitter(rgb / 255, amounts.tolist(), order.tolist())
                one = rgb.flip(0) if self.image_format == "BGR" else rgb
            if gates.blur:
                one = _blur(one, generator)
            augmented.append(one)
        return torch.stack(augmented)


def _jitter(image: Tensor, amounts: Sequence[float], order: Sequence[int]) -> Tensor:
    """Change the colors of ``(3, H, W)`` in [0, 1]: brightness, contrast, saturation, hue."""
    brightness, contrast, saturation, hue = amounts
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda image: (image + brightness).clamp(0, 1),
        lambda image: (image * (1 + contrast)).clamp(0, 1),
        lambda image: _saturate(image, 1 + saturation),
        lambda image: TF.adjust_hue(image, hue),
    ]
    for index in order:
        image = changes[index](image)
    return image


def _saturate(image: Tensor, factor: float) -> Tensor:
    """Multiply the saturation of HSV, (max - min) / max of the channels; hue and maximum stay."""
    high, low = image.amax(-3, keepdim=True), image.amin(-3, keepdim=True)
    most = high / (high - low)  # the factor of a saturation of 1; infinite for gray
    return high - (high - image) * most.clamp(max=factor).nan_to_num(factor)


def denormalized(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What the authors' networks see of a weakly augmented source image once it was jittered.

    Their jitter turns normalized values into [0, 1] in place, and they stay so: the networks see
    an image at about a quarter of its contrast.

    Args:
        image: ``(N, 3, H, W)`` in [0, 255].
        mean, std: of the channels, ``(3, 1, 1)``.

    Returns:
        ``(N, 3, H, W)``, an image which is, normalized, ``image / 255``.

    Examples:
        >>> channels = torch.full((3, 1, 1), 50.0)
        >>> seen = denormalized(torch.tensor([0.0, 255.0]).expand(1, 3, 1, 2), channels, channels)
        >>> (seen - channels) / channels == torch.tensor([0.0, 1.0])
        tensor([[[[True, True]],
        <BLANKLINE>
                 [[True, True]],
        <BLANKLINE>
                 [[True, True]]]])
    """
    return mean + std * (image / 255)


def _blur(image: Tensor, generator: torch.Generator) -> Tensor:
    low, high = BLUR_SIGMA
    sigma = low + (high - low) * float(torch.rand((), generator=generator))
    # Four standard deviations on each side hold all but 0.0001 of the weight. The published kernel,
    # 63 pixels wide at 640, gives the same picture to 0.001 of 255 in ten times the time.
    return TF.gaussian_blur(image, 2 * math.ceil(4 * sigma) + 1, sigma)
