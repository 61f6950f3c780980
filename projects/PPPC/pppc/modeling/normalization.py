"""Whether images are normalized as an encoder's weights want them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

TOLERANCE = 0.5  # of 255


@dataclass(frozen=True)
class InputStatistics:
    """How the configuration normalizes images.

    Attributes:
        format: INPUT.FORMAT, "RGB" or "BGR".
        mean, std: MODEL.PIXEL_MEAN and PIXEL_STD, of images in [0, 255], in the format's order.
    """

    format: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, cfg: CfgNode) -> InputStatistics:
        """Those of a configuration."""
        model = cfg.MODEL
        return cls(cfg.INPUT.FORMAT, tuple(model.PIXEL_MEAN), tuple(model.PIXEL_STD))

    def warn_unless(
        self, mean: Sequence[float], std: Sequence[float], image_format: str = "RGB", *, name: str
    ) -> None:
        """One warning where an encoder's weights were trained with other statistics.

        Args:
            mean, std: of red, green and blue in [0, 1], as timm has them.
            image_format: the order of the channels that the encoder takes.
            name: of the encoder or its file, for the message.
        """
        order = -1 if image_format == "BGR" else 1
        wanted = {
            "MODEL.PIXEL_MEAN": (self.mean, [round(255 * value, 3) for value in mean][::order]),
            "MODEL.PIXEL_STD": (self.std, [round(255 * value, 3) for value in std][::order]),
        }
        changes = [
            f"{key} {theirs} (now {list(ours)})"
            for key, (ours, theirs) in wanted.items()
            if len(ours) != len(theirs) or max(abs(a - b) for a, b in zip(ours, theirs)) > TOLERANCE
        ]
        if self.format != image_format:
            changes.append(f"INPUT.FORMAT {image_format}: red and blue are swapped")
        if changes:
            logger.warning(
                "The weights of %s were trained on images that were prepared otherwise. Set %s",
                name,
                " and ".join(changes),
            )
