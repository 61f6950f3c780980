"""Classes as a frozen ImageNet encoder knows them, to label target images and to predict by.

What the encoder was pretrained for is of no domain: its features of a class differ less between source and
the target than those of the trained encoder (the idea of DFUDA's prototypes and DAFormer's feature distance).

Shapes: N images, H x W pixels, h x w positions, C classes, F channels of all maps together.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .labeled_pixels import resize_labels


class ImageNetPrototypes(nn.Module):
    """Mean directions of the classes' features on the source, and how near to them pixels are.

    A position's features are those of all maps at the finest one's size, each map's of unit length, so that
    each counts the same.

    Args:
        encoder: the frozen one, images ``(N, 3, H, W)`` in [0, 255] to feature maps, the finest first.
        num_classes: C.
        channels: F.
        temperature: divides the cosines.
        total: the sum of a tensor over the processes that share the batch.

    Examples:
        >>> prototypes = ImageNetPrototypes(lambda image: [image[:, :2]], 2, 2, temperature=0.5)
        >>> image = torch.tensor([[3.0, 0.0], [4.0, 1.0], [0.0, 0.0]]).view(1, 3, 1, 2)
        >>> prototypes.update(image, torch.tensor([[[0, 1]]]))
        >>> prototypes.scores(image)[0, :, 0]
        tensor([[2.0000, 1.6000],
                [1.6000, 2.0000]])
    """

    sums: Tensor
    prediction_weight: Tensor

    def __init__(
        self,
        encoder: Callable[[Tensor], Sequence[Tensor]],
        num_classes: int,
        channels: int,
        temperature: float = 0.05,
        total: Callable[[Tensor], Tensor] = lambda sums: sums,
    ):
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.total = total
        self.register_buffer("sums", torch.zeros(num_classes, channels))
        self.register_buffer("prediction_weight", torch.ones(()))  # of their scores in prediction

    def _features(self, image: Tensor) -> Tensor:
        """``(N, F, h, w)`` of unit length."""
        maps = [F.normalize(features.float(), dim=1) for features in self.encoder(image)]
        size = maps[0].shape[-2:]
        resized = [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]
        return F.normalize(torch.cat(resized, 1), dim=1)

    @torch.no_grad()
    def update(self, image: Tensor, label: Tensor) -> None:
        """Add a batch of the source to the means.

        Args:
            image: ``(N, 3, H, W)``.
            label: ``(N, H, W)`` train IDs; others than [0, C) count nothing.
        """
        features = self._features(image).nan_to_num()  # one overflow must not stay for ever
        label = resize_labels(label, features.shape[-2:])
        # Unlike one_hot, this does not wait for a device.
        of_class = label[..., None] == torch.arange(len(self.sums), device=label.device)
        self.sums += self.total(torch.einsum("nhwc,nfhw->cf", of_class.float(), features))

    @torch.no_grad()
    def scores(self, image: Tensor) -> Tensor:
        """Cosines over the temperature ``(N, C, h, w)``, to be added to logits.

        A class that no source pixel had yet has the mean of the others, for it or against it nothing.
        """
        cosines = torch.einsum(
            "nfhw,cf->nchw", self._features(image), F.normalize(self.sums, dim=1)
        )
        seen = self.sums.any(1).view(-1, 1, 1)
        mean = (cosines * seen).sum(1, keepdim=True) / seen.sum().clamp(min=1)
        return cosines.where(seen, mean) / self.temperature
