"""How many pixels of each class a data set's labels show: the files of DAFormer and its successors.

- `sample_class_stats.json`: a list with one `{train id: pixels, ..., "file": path}` per label;
- `sample_class_stats_dict.json`: `{path: {train id: pixels, ...}}`;
- `samples_with_class.json`: `{train id: [[path, pixels], ...]}`.

Classes without a pixel are left out; paths are those of the train-id images. The converters write
all three for other projects. This one reads none of them, as nothing in them tells whether they are
older than the labels: it counts the labels, see :mod:`pppc.data.inspection`.
"""

import json
import os
from collections.abc import Mapping

from ..files import write_atomically

STATISTICS = ("sample_class_stats.json", "sample_class_stats_dict.json", "samples_with_class.json")


def write_statistics(counts: Mapping[str, Mapping[int, int]], folder: str | os.PathLike) -> None:
    """Write the three files to a folder, from the pixels of each train ID by the path of the label."""
    samples_with_class: dict[int, list] = {}
    for path, pixels in counts.items():
        for train_id, number in pixels.items():
            samples_with_class.setdefault(train_id, []).append([path, number])
    os.makedirs(folder, exist_ok=True)
    contents = (
        [{**pixels, "file": path} for path, pixels in counts.items()],
        counts,
        dict(sorted(samples_with_class.items())),
    )
    for name, content in zip(STATISTICS, contents):
        write_atomically(os.path.join(folder, name), json.dumps(content, indent=2).encode())
