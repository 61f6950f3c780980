"""The tensors that one training pass works on.

Shapes: N images, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from detectron2.structures import ImageList
from torch import Tensor


@dataclass(frozen=True)
class PixelBatch:
    """Images of one size, with what is known of their pixels.

    Attributes:
        image: ``(N, 3, H, W)`` float32 in [0, 255], or uint8 before :meth:`to`; channels as
            INPUT.FORMAT says.
        label: ``(N, H, W)`` int64 (uint8 before :meth:`to`) train IDs or the ignore label; None for
            target images that have no pseudo-label yet.
        weight: ``(N, H, W)`` float32 weight of each pixel in the cross-entropy; None: 1 everywhere.
        confidence: ``(N, H, W)`` float32 probability of each pseudo-label; None where labels are
            given.
        day_image: ``(N, 3, H, W)`` as ``image``, of the same places by day; None where there are
            none.
        probabilities: ``(N, C, H, W)`` what the teacher says of them, where it is known already; or None.
        files: of the images, as the data set's records name them; () where they come from none.

    Examples:
        >>> batch = PixelBatch(torch.zeros(2, 3, 8, 8), label=torch.zeros(2, 8, 8, dtype=torch.long))
        >>> len(batch), batch.weight
        (2, None)
        >>> batch.crop([(0, 0), (4, 4)], (4, 4)).label.shape
        torch.Size([2, 4, 4])
    """

    image: Tensor
    label: Tensor | None = None
    weight: Tensor | None = None
    confidence: Tensor | None = None
    day_image: Tensor | None = None
    probabilities: Tensor | None = None
    files: tuple[str, ...] = ()

    @classmethod
    def from_dicts(cls, batch: Sequence[dict], device: torch.device, ignore_label: int) -> Self:
        """Detectron2's list of labeled images, padded at the right and below to one size.

        Dictionaries have "image" ``(3, H, W)`` in [0, 255] and "sem_seg" ``(H, W)``; of the padding, the
        image is 0 and the label ``ignore_label``.
        """

        def together(name: str, padding: float) -> Tensor:
            tensors = [record[name].to(device) for record in batch]
            return ImageList.from_tensors(tensors, pad_value=padding).tensor

        label = together("sem_seg", ignore_label).long()
        return cls(together("image", 0).float(), label)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, Tensor))

    def to(self, device: torch.device) -> Self:
        """The same batch on ``device``, where bytes become float32 images and int64 labels."""
        batch = self._of_each(lambda tensor: tensor.to(device, non_blocking=True))
        return replace(
            batch,
            image=batch.image.float(),
            label=None if batch.label is None else batch.label.long(),
            day_image=None if batch.day_image is None else batch.day_image.float(),
        )

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory; PyTorch's loaders call this."""
        return self._of_each(Tensor.pin_memory)

    def _of_each(self, function: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: function(value) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)

    def crop(self, corners: Sequence[tuple[int, int]], size: tuple[int, int]) -> Self:
        """The batch of boxes cut from each image, and from all that is known of its pixels.

        Args:
            corners: (top, left) of each image's box.
            size: (height, width) of the boxes.

        Examples:
            >>> batch = PixelBatch(torch.arange(12.0).view(1, 1, 3, 4))
            >>> batch.crop([(1, 2)], (2, 2)).image.tolist()
            [[[[6.0, 7.0], [10.0, 11.0]]]]
        """
        height, width = size

        def cut(images: Tensor) -> Tensor:
            boxes = zip(images, corners, strict=True)
            return torch.stack(
                [one[..., top : top + height, left : left + width] for one, (top, left) in boxes]
            )

        return self._of_each(cut)

    def confident(self, threshold: float, ignore_label: int) -> Self:
        """The same batch of pseudo-labels, those that are less probable than ``threshold`` ignored."""
        if self.label is None or self.confidence is None:
            raise ValueError("only a pseudo-labeled batch has labels and their confidence")
        unsure = self.confidence < threshold
        return replace(self, label=self.label.masked_fill(unsure, ignore_label))
