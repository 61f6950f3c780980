"""How many pixels of each class a data set's labels show: the files of DAFormer and its successors.

- `sample_class_stats.json`: a list with one `{train id: pixels, ..., "file": path}` per label;
- `sample_class_stats_dict.json`: `{path: {train id: pixels, ...}}`;
- `samples_with_class.json`: `{train id: [[path, pixels], ...]}`.

Classes without a pixel are left out; paths are those of the train-id images. The converters write
all three, for other projects; this one reads the first, which may be another project's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from ..files import write_atomically

__all__ = ["STATISTICS_FILE", "read_statistics", "write_statistics"]

STATISTICS_FILE = "sample_class_stats.json"


def write_statistics(counts: Mapping[str, Mapping[int, int]], folder: str | os.PathLike) -> None:
    """Write the three statistics files.

    Args:
        counts: pixels of each train id by the path of the train-id image.
        folder: where to; made if absent.
    """
    samples_with_class: dict[int, list] = {}
    for path, pixels in counts.items():
        for train_id, number in pixels.items():
            samples_with_class.setdefault(train_id, []).append([path, number])
    os.makedirs(folder, exist_ok=True)
    for name, content in {
        STATISTICS_FILE: [{**pixels, "file": path} for path, pixels in counts.items()],
        "sample_class_stats_dict.json": counts,
        "samples_with_class.json": dict(sorted(samples_with_class.items())),
    }.items():
        write_atomically(os.path.join(folder, name), json.dumps(content, indent=2).encode())


def read_statistics(path: Path, label_files: list[str]) -> list[dict[int, int]]:
    """The pixels of each train id in each of ``label_files``, which are matched by file name.

    The folders in the statistics may be those of another machine or of the project that wrote them.

    Args:
        path: of a `sample_class_stats.json`.
        label_files: paths of the train-id images.

    Raises:
        InputError: the file is not of this format, or a label is not in it; the message names both
            and the mend.
    """
    mend = "Run the data set's tools/convert_datasets script again to renew it"
    try:
        counts = {
            os.path.basename(entry["file"]): {
                int(train_id): int(pixels) for train_id, pixels in entry.items() if train_id != "file"
            }
            for entry in json.loads(path.read_text())
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is no list of {{train id: pixels, file: path}} ({error!r}). {mend}."
        ) from error
    absent = [file for file in label_files if os.path.basename(file) not in counts]
    if absent:
        raise InputError(
            f"{path} counts {len(counts)} labels, but not {len(absent)} of the {len(label_files)} in "
            f"use, for example not {absent[0]}: it is stale, or another folder's. {mend}, or delete "
            "it to have the labels counted before each training."
        )
    return [counts[os.path.basename(file)] for file in label_files]
