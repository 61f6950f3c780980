"""Whether images are normalized as an encoder's weights want them."""

import logging
from typing import NamedTuple

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

TOLERANCE = 0.5  # of 255


class Preparation(NamedTuple):
    """How images were prepared in an encoder's training: mean and std of red, green and blue in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_format: str = "RGB"

    def warn_unless(self, cfg: CfgNode, name: str) -> None:
        """One warning where a configuration prepares them otherwise; ``name`` is the encoder or its file."""
        order = -1 if self.image_format == "BGR" else 1
        changes = []
        for key, values in (("PIXEL_MEAN", self.mean), ("PIXEL_STD", self.std)):
            ours, theirs = cfg.MODEL[key], [round(255 * value, 3) for value in values][::order]
            pairs = zip(ours, theirs)
            if len(ours) != len(theirs) or max(abs(a - b) for a, b in pairs) > TOLERANCE:
                changes.append(f"MODEL.{key} {theirs} (now {list(ours)})")
        if cfg.INPUT.FORMAT != self.image_format:
            changes.append(f"INPUT.FORMAT {self.image_format}: red and blue are swapped")
        if changes:
            logger.warning(
                "The weights of %s were trained on images that were prepared otherwise. Set %s",
                name,
                " and ".join(changes),
            )
