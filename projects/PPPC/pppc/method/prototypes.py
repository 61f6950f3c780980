"""Class prototypes as Gaussians, updated from labeled pixels.

Shapes: B images, H x W pixels, h x w positions of the embedding, C classes, D dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .labeled_pixels import count_labels, labeled_pixels

UPDATE_RULES = ("ema", "posterior", "batch")
VARIANCES = ("product", "count_normalized")
CONVENTIONS = ("published", "log_variance")


class GaussianPrototypes(nn.Module):
    """A Gaussian per class: the product of its pixels' Gaussians (arXiv 2409.18543, PRCL).

    A pixel of log-variance ``s`` has the precision ``exp(-s)``. A batch gives each class the sums
    ``precision = sum exp(-s)`` and ``weighted_mean = sum exp(-s) mean`` over its N pixels in all
    processes; the class's mean is then ``weighted_mean / precision``, its variance
    ``1 / precision`` ("product") or ``N / precision`` ("count_normalized"), which does not shrink
    as pixels are added.

    That is the convention "log_variance". "published" takes the head's output s, in (0, 1), for a
    variance, so that a pixel's precision is ``1 / s``; and since the published score and crop take
    what is kept as it is, it keeps the variance where "log_variance" keeps its logarithm.

    The paper's own file for this was never published: all of this is reconstruction. "published"
    with "ema" and "product" is PRCL's product of Gaussians, averaged over the batches. Of what was
    tried it alone spreads the crop's weights as the copy of them in the published code is spread.

    Args:
        num_classes: C.
        dim: D.
        update_rule: "ema" averages the batches' means and variances; "posterior" adds the batches'
            sums up; "batch" keeps the last batch's.
        variance: "product" or "count_normalized".
        momentum: of "ema": the share that an update keeps, once a class has had so many updates
            that their plain average would keep more.
        forgetting: of "posterior": the share of the old sums that an update keeps.
        ignore_label: label of pixels that take no part.
        convention: how the head's output is read: "log_variance" or "published".

    Attributes:
        mean: ``(C, D)`` float32, not normalized; 0 for a class not seen yet.
        log_var: ``(C, D)`` float32, the variance in the convention "published"; 0 for a class not
            seen yet.
        num_updates: ``(C,)`` int64, the batches that showed the class.

    Raises:
        ValueError: the rule, the variance or the convention is unknown.

    Examples:
        >>> prototypes = GaussianPrototypes(num_classes=3, dim=1)
        >>> mean = torch.tensor([1.0, 3.0, 5.0]).view(1, 1, 1, 3)  # three pixels of variance 1
        >>> prototypes.update(mean, torch.zeros_like(mean), torch.tensor([[[0, 0, 1]]]))
        >>> prototypes.mean[:, 0], prototypes.log_var.exp()[:, 0]  # two pixels: half of the variance
        (tensor([2., 5., 0.]), tensor([0.5000, 1.0000, 1.0000]))
        >>> prototypes.seen
        tensor([ True,  True, False])
    """

    mean: Tensor
    log_var: Tensor
    num_updates: Tensor
    sums: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        update_rule: str = "ema",
        variance: str = "product",
        momentum: float = 0.999,
        forgetting: float = 1.0,
        ignore_label: int = 255,
        convention: str = "log_variance",
    ):
        super().__init__()
        for name, value, known in (
            ("update_rule", update_rule, UPDATE_RULES),
            ("variance", variance, VARIANCES),
            ("convention", convention, CONVENTIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}: use one of {known}")
        self.update_rule = update_rule
        self.variance = variance
        self.convention = convention
        self.momentum = momentum
        self.forgetting = forgetting
        self.ignore_label = ignore_label
        self.register_buffer("mean", torch.zeros(num_classes, dim))
        self.register_buffer("log_var", torch.zeros(num_classes, dim))
        self.register_buffer("num_updates", torch.zeros(num_classes, dtype=torch.int64))
        if update_rule == "posterior":
            # As _batch_sums returns them; float64, since small batches are added to large sums.
            sums = torch.zeros(num_classes, 2 * dim + 1, dtype=torch.float64)
            self.register_buffer("sums", sums)

    @property
    def seen(self) -> Tensor:
        """``(C,)`` bool: the classes that have a prototype."""
        return self.num_updates > 0

    @torch.no_grad()
    def update(
        self,
        mean: Tensor,
        log_var: Tensor,
        label: Tensor,
        total: Callable[[Tensor], Tensor] = lambda sums: sums,
    ) -> None:
        """Take in one batch; classes that it does not show stay as they are.

        Args:
            mean, log_var: ``(B, D, h, w)``.
            label: ``(B, H, W)`` train IDs or the ignore label, resized to the nearest.
            total: of sums over the processes that share the batch.
        """
        sums = total(self._batch_sums(mean, log_var, label))
        present = sums[:, -1:] > 0
        if self.update_rule == "posterior":
            self.sums.copy_(torch.where(present, self.forgetting * self.sums + sums, self.sums))
            sums = self.sums
        # Of classes that are not present these may be no numbers; they are not taken.
        new_mean, new_var = self._gaussian(sums)
        self.num_updates += present[:, 0]
        published = self.convention == "published"
        if self.update_rule == "ema":
            keep = (1 - 1 / self.num_updates).clamp(max=self.momentum)[:, None]
            old_var = self.log_var if published else self.log_var.exp()
            new_mean = keep * self.mean + (1 - keep) * new_mean
            new_var = keep * old_var + (1 - keep) * new_var
        self.mean.copy_(torch.where(present, new_mean, self.mean))
        self.log_var.copy_(
            torch.where(present, new_var if published else new_var.log(), self.log_var)
        )

    def _batch_sums(self, mean: Tensor, log_var: Tensor, label: Tensor) -> Tensor:
        """Precision, weighted mean and count of each class in one tensor, ``(C, 2 D + 1)``."""
        num_classes, dim = self.mean.shape
        every_class = torch.ones_like(self.seen)
        pixels = labeled_pixels(mean, log_var, label, every_class, self.ignore_label)
        published = self.convention == "published"
        precision = 1 / pixels.log_var if published else (-pixels.log_var).exp()
        sums = precision.new_zeros(num_classes + 1, 2 * dim + 1)  # last: what takes no part
        sums[:, :dim].index_add_(0, pixels.label, precision)
        sums[:, dim:-1].index_add_(0, pixels.label, precision * pixels.mean)
        sums = sums[:-1]
        sums[:, -1] = count_labels(pixels.label, num_classes)
        return sums

    def _gaussian(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(C, D)`` of sums ``(C, 2 D + 1)``."""
        dim = self.mean.shape[1]
        precision, weighted_mean, count = sums.split((dim, dim, 1), dim=1)
        variance = (count if self.variance == "count_normalized" else 1) / precision
        return weighted_mean / precision, variance
