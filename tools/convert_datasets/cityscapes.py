#!/usr/bin/env python3
"""Convert Cityscapes' labels (ROOT/gtFine) to train ids; count the classes of the training split.

A label is drawn from its polygons, or read from its *_gtFine_labelIds image where those are absent.
"""

import os
from functools import partial

import numpy as np
from pppc.data.conversion import LabelFile, images_by_stem, main, one_of_each, to_train_ids
from pppc.data.formats.cityscapes_polygons import draw_polygons
from pppc.data.labels import LabelReader
from pppc.data.listing import LABEL_ENDINGS
from pppc.data.stamps import TRAIN_IDS_SUFFIX
from pppc.errors import InputError, run_tool

# By their names' ends, and the endings after it, in any case; the later ones are preferred.
_KINDS = {"_gtFine_labelIds": LABEL_ENDINGS, "_gtFine_polygons": (".json",)}
_READER = LabelReader("cityscapes", train_ids=False)
_BY_NUMBER = LabelReader("cityscapes", train_ids=False, numbers_are_ids=True)


def list_labels(root: str, out: str) -> list[LabelFile]:
    """Every label of every split, those of the training split to be counted; outputs go below ``out``.

    Raises:
        InputError: there is none, or two of one image and kind.
    """
    labels: list[LabelFile] = []
    folder = os.path.join(root, "gtFine")
    for split in sorted(_folders(folder), key=lambda entry: entry.name):
        for city in sorted(_folders(split.path), key=lambda entry: entry.name):
            names = sorted(os.listdir(city.path))
            sources: dict[str, str] = {}
            for end, endings in _KINDS.items():
                found = [name for name in names if _is_named(name, end, endings)]
                stem_of = partial(_stem, end=end)
                sources |= one_of_each(city.path, found, stem_of)
            images = images_by_stem(os.path.join(root, "leftImg8bit", split.name, city.name))
            output = os.path.join(out, "gtFine", split.name, city.name)
            labels += [
                LabelFile(
                    source=os.path.join(city.path, name),
                    output=os.path.join(output, f"{stem}_gtFine{TRAIN_IDS_SUFFIX}"),
                    image=images.get(f"{stem}_leftImg8bit", ""),
                    counted=split.name == "train",
                )
                for stem, name in sorted(sources.items())
            ]
    if not labels:
        raise InputError(
            f"no *{' or *'.join(_KINDS)} in {folder}: ROOT must hold gtFine/SPLIT/CITY as unpacked"
        )
    return labels


def _stem(name: str, end: str) -> str:
    return os.path.splitext(name)[0].removesuffix(end)


def _is_named(name: str, end: str, endings: tuple[str, ...]) -> bool:
    stem, ending = os.path.splitext(name)
    return stem.endswith(end) and ending.lower() in endings and not name.startswith(".")


def _folders(path: str) -> list[os.DirEntry]:
    return [entry for entry in os.scandir(path) if entry.is_dir()] if os.path.isdir(path) else []


def read_label(path: str, reader: LabelReader = _READER) -> np.ndarray:
    """Train ids from either kind of file."""
    if path.lower().endswith(".json"):
        return to_train_ids(path, draw_polygons(path), reader.space)
    return reader.read(path)


if __name__ == "__main__":
    by_number = partial(read_label, reader=_BY_NUMBER)
    run_tool(partial(main, __doc__, list_labels, read_label, _READER.space, by_number))
