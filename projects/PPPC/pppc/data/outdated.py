"""Converted labels that were made from other labels than are there now."""

import os
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ..errors import InputError
from .inspection import Job, look_at
from .listing import LABEL_ENDINGS, datasets_root
from .splits import Split
from .stamps import TRAIN_IDS_SUFFIX, source_hash
from .train_ids import LABEL_SPACES, LabelSpace

# What follows the stem of a raw label, in any case.
_ENDS = (*LABEL_ENDINGS, *(f"_labelids{end}" for end in LABEL_ENDINGS), "_polygons.json")


def outdated_labels(split: Split, stamps: Mapping[str, str]) -> list[str]:
    """A sentence for each converted label whose raw label, or its label space, is another one now.

    Raw labels that were looked at before and have not changed are not opened again. ``stamps`` has, by the
    file of each converted label, the hash of what it was made from.
    """
    if split.label_folder is None:
        return []
    below = f"/{os.path.normpath(split.label_folder)}/"  # of the data sets' root, or of another one
    raw: dict[str, Mapping[str, list[str]]] = {}
    sources: dict[str, list[str]] = {}
    label_folder = str(datasets_root() / split.label_folder)
    for label in (label for label in stamps if label.endswith(TRAIN_IDS_SUFFIX)):
        inside = label.removesuffix(TRAIN_IDS_SUFFIX).rpartition(below)[2]
        folder, stem = os.path.split(os.path.join(label_folder, inside))
        if folder not in raw:
            raw[folder] = _by_stem(folder)
        if found := raw[folder].get(stem.lower()):
            sources[label] = found
    space = LABEL_SPACES[split.label_space]
    job = Job(f"source {source_hash(b'', space)}", partial(_hashes, space=space))
    known = look_at({source: job for several in sources.values() for source in several})
    return [
        f"{label}: was made from another label than is there now ({several[0]}): convert again"
        for label, several in sources.items()
        # A raw label that can't be read tells nothing.
        if not any(
            stamps[label] in known[source].get("hashes", [stamps[label]]) for source in several
        )
    ]


def _by_stem(folder: str) -> Mapping[str, list[str]]:
    """Raw labels by their names' stems, small."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        small = name.lower()
        for end in _ENDS:
            if small.endswith(end) and not name.startswith("."):
                found[small.removesuffix(end)].append(os.path.join(folder, name))
    return found


def _hashes(path: str, space: LabelSpace) -> dict:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    return {"hashes": [source_hash(content, space, numbers) for numbers in (False, True)]}
