"""Label Studio's exports of brush strokes as labels: JSON, JSON_MIN, and a file for each stroke."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np

from ...errors import InputError
from ..images import open_whole
from ..listing import files_below
from .drawing import Annotations, Drawing, with_background

# Label Studio's names of PNG files: the sanitized e-mail address has no hyphen.
STROKE = re.compile(
    r"task-(\d+)-annotation-(\d+)-by-[^-]*-[^-]+-(.+)-(\d+)\.(?:png|npy)", re.IGNORECASE
)


def label_studio(path: Path, tasks: list[dict]) -> Annotations:
    """The brush strokes of all tasks, later ones before earlier ones.

    Raises:
        InputError: there are none, or regions of other kinds.
    """
    strokes: dict[str, list[dict]] = {}
    labels: set[str] = set()
    for task in tasks:
        regions = _regions(task)
        for region in regions:
            kind = region.get("type") or next(k for k in region["value"] if k.endswith("labels"))
            if kind != "brushlabels" or region["value"].get("format") != "rle":
                raise InputError(
                    f"{path}: task {task.get('id')} has {kind}, not brush strokes alone: export as COCO"
                )
        if regions:
            strokes[_task_image(task)] = regions
            labels |= {region["value"]["brushlabels"][0] for region in regions}
    if not strokes:
        raise InputError(f"{path}: no task of Label Studio has a brush stroke")
    numbers = {name: number for number, name in enumerate(sorted(labels), 1)}
    classes, unlabeled = with_background({number: name for name, number in numbers.items()})
    numbers = {name: number for number, name in classes.items()}
    drawings = {
        name: Drawing(
            partial(_draw_strokes, path, regions, numbers, unlabeled), (str(path),), repr(numbers)
        )
        for name, regions in strokes.items()
    }
    return Annotations("Label Studio", classes, drawings)


def _regions(task: dict) -> list[dict]:
    """The brush strokes of a task; of several annotations those that are the truth, or the newest."""
    if "annotations" in task or "completions" in task:
        several = task.get("annotations") or task.get("completions") or []
        several = [one for one in several if not one.get("was_cancelled")]
        order = [(bool(one.get("ground_truth")), str(one.get("updated_at", ""))) for one in several]
        if not several:
            return []
        chosen = several[max(range(len(several)), key=order.__getitem__)]
        return [region for region in chosen["result"] if region.get("type") != "choices"]
    # JSON_MIN: a list for each tag of brushes, with the values alone.
    lists = [v for v in task.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return [{"value": value, **value} for values in lists for value in values if "rle" in value]


def _task_image(task: dict) -> str:
    data = task.get("data", task)
    address = next(
        (str(data[key]) for key in ("image", "img", "picture", "photo") if key in data),
        next((str(v) for v in data.values() if isinstance(v, str) and "/" in v), ""),
    )
    parts = urlparse(address)
    local = parse_qs(parts.query).get("d", [""])[0]  # /data/local-files/?d=FOLDER/FILE
    return unquote(local or parts.path)


def _draw_strokes(
    path: Path, regions: list[dict], numbers: Mapping[str, int], unlabeled: int
) -> np.ndarray:
    height, width = regions[0]["original_height"], regions[0]["original_width"]
    label = np.full((height, width), unlabeled, np.uint8)
    for region in regions:
        channels = _decode_rle(bytes(region["value"]["rle"]))
        if channels.size != 4 * height * width:
            raise InputError(
                f"{path}: a brush stroke of {width}x{height} has {channels.size} values"
            )
        name = region["value"]["brushlabels"][0]
        label[channels.reshape(height, width, 4)[:, :, 3] > 127] = numbers[name]
    return label


def _decode_rle(data: bytes) -> np.ndarray:
    """Label Studio's run lengths: bits of a count, of sizes of words and runs, then of the runs."""
    bits = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(size: int) -> int:
        nonlocal at
        at += size
        if at > len(bits):
            raise ValueError("a brush stroke is cut off")
        return int(bits[at - size : at], 2)

    count, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        is_run = read(1)
        end = done + 1 + read(sizes[read(2)])
        values[done:end] = read(word) if is_run else [read(word) for _ in range(done, end)]
        done = end
    return values


def label_studio_strokes(folder: Path) -> Annotations | None:
    """Label Studio's PNG export, a file for each stroke; None: the folder holds none.

    Raises:
        InputError: a JSON file beside it, which tells tasks and images, is damaged.
    """
    by_task: dict[str, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(files_below(folder)):
        if found := STROKE.fullmatch(os.path.basename(name)):
            task, annotation, label, number = found.groups()
            by_task[task][int(annotation)].append((label, int(number), str(folder / name)))
    if not by_task:
        return None
    images: dict[str, str] = {}
    for file in (*folder.glob("*.json"), *folder.parent.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        if isinstance(content, list):
            images |= {str(task["id"]): _task_image(task) for task in content if "id" in task}
    labels = sorted(
        {label for of in by_task.values() for all_ in of.values() for label, *_ in all_}
    )
    classes, unlabeled = with_background(dict(enumerate(labels, 1)))
    numbers = {name: number for number, name in classes.items()}
    drawings = {}
    for task, by_annotation in by_task.items():
        layers = [
            (numbers[label], file) for label, _, file in sorted(by_annotation[max(by_annotation)])
        ]
        files = tuple(file for _, file in layers)
        drawings[images.get(task, task)] = Drawing(
            partial(_draw_layers, layers, unlabeled), files, repr((layers, unlabeled))
        )
    return Annotations("Label Studio PNG", classes, drawings)


def _draw_layers(layers: list[tuple[int, str]], unlabeled: int) -> np.ndarray:
    """Small strokes before large ones: nothing tells which one was later."""
    masks = [(_layer(file) > 127, number) for number, file in layers]
    label = np.full(masks[0][0].shape, unlabeled, np.uint8)
    for mask, number in sorted(masks, key=lambda layer: layer[0].sum(), reverse=True):
        label[mask] = number
    return label


def _layer(file: str) -> np.ndarray:
    if file.lower().endswith(".npy"):
        return np.load(file, allow_pickle=False)
    return np.asarray(open_whole(file)[1].convert("L"))
