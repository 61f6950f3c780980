#!/usr/bin/env python3
"""Convert Cityscapes' labels (ROOT/gtFine) to train ids; count the classes of the training split.

A label is drawn from its polygons, or read from its *_gtFine_labelIds.png where those are absent.
"""

import os
from functools import partial

import numpy as np
from pppc.data.cityscapes_polygons import draw_polygons
from pppc.data.conversion import TRAIN_IDS_SUFFIX, LabelFile, main, to_train_ids
from pppc.data.labels import LabelReader
from pppc.errors import InputError, run_tool

_POLYGONS, _LABEL_IDS = "_gtFine_polygons.json", "_gtFine_labelIds.png"
_READER = LabelReader("cityscapes", train_ids=False)


def list_labels(root: str, out: str) -> list[LabelFile]:
    """Every label of every split; those of the training split are counted.

    Args:
        root: of the data set.
        out: root of the outputs.

    Raises:
        InputError: there is none.
    """
    sources: dict[tuple[str, str, str], str] = {}
    folder = os.path.join(root, "gtFine")
    cities = [
        (split.name, city.name)
        for split in sorted(_folders(folder), key=lambda entry: entry.name)
        for city in sorted(_folders(split.path), key=lambda entry: entry.name)
    ]
    for suffix in (_LABEL_IDS, _POLYGONS):  # polygons replace what was listed before
        for split, city in cities:
            for name in os.listdir(os.path.join(folder, split, city)):
                if name.endswith(suffix) and not name.startswith("."):
                    sources[split, city, name.removesuffix(suffix)] = name
    if not sources:
        raise InputError(
            f"no *{_POLYGONS} or *{_LABEL_IDS} in {folder}: ROOT must hold gtFine/SPLIT/CITY as "
            "unpacked"
        )
    return [
        LabelFile(
            source=os.path.join(folder, split, city, name),
            output=os.path.join(out, "gtFine", split, city, f"{stem}_gtFine{TRAIN_IDS_SUFFIX}"),
            image=os.path.join(root, "leftImg8bit", split, city, f"{stem}_leftImg8bit.png"),
            counted=split == "train",
        )
        for (split, city, stem), name in sorted(sources.items())
    ]


def _folders(path: str) -> list[os.DirEntry]:
    return [entry for entry in os.scandir(path) if entry.is_dir()] if os.path.isdir(path) else []


def read_label(path: str) -> np.ndarray:
    """Train ids from either kind of file."""
    if path.endswith(_POLYGONS):
        return to_train_ids(path, draw_polygons(path), _READER.space)
    return _READER.read(path)


if __name__ == "__main__":
    run_tool(partial(main, __doc__, list_labels, read_label, _READER.space))
