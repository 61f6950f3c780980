#!/usr/bin/env python3
"""Convert Cityscapes' labels (ROOT/gtFine) to train ids; count the classes of the training split.

A label is drawn from its polygons, or read from its *_gtFine_labelIds.png where those are absent.
"""

import glob
import os
import sys

from pppc.data.cityscapes_polygons import draw_polygons
from pppc.data.conversion import TRAIN_IDS_SUFFIX, LabelFile, main, read_index_image
from pppc.data.train_ids import LABEL_SPACES

_POLYGONS, _LABEL_IDS = "_polygons.json", "_labelIds.png"


def list_labels(root: str) -> list[LabelFile]:
    """Every label of every split; those of the training split are counted.

    Raises:
        FileNotFoundError: there is none.
    """
    sources: dict[str, str] = {}
    for suffix in (_LABEL_IDS, _POLYGONS):  # polygons replace what was listed before
        for path in glob.glob(os.path.join(root, "gtFine", "*", "*", f"*_gtFine{suffix}")):
            sources[path.removesuffix(suffix)] = path
    if not sources:
        raise FileNotFoundError(
            f"no *_gtFine{_POLYGONS} or *_gtFine{_LABEL_IDS} in {os.path.join(root, 'gtFine')}: "
            "ROOT must hold gtFine/SPLIT/CITY as unpacked"
        )
    labels = []
    for stem, source in sorted(sources.items()):
        split, city, name = stem.split(os.sep)[-3:]
        image = f"{name.removesuffix('_gtFine')}_leftImg8bit.png"
        labels.append(
            LabelFile(
                source=source,
                output=stem + TRAIN_IDS_SUFFIX,
                image=os.path.join(root, "leftImg8bit", split, city, image),
                counted=split == "train",
            )
        )
    return labels


def read_label(path: str):
    """Label ids from either kind of file."""
    return draw_polygons(path) if path.endswith(_POLYGONS) else read_index_image(path)


if __name__ == "__main__":
    sys.exit(main(__doc__, list_labels, read_label, LABEL_SPACES["cityscapes"]))
