"""Writes the demo data in the file formats and folder trees of the real data sets.

Every image is drawn from the seed and its own number alone: neither the number of images nor that
of processes changes it.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image
from pppc.data.train_ids import IGNORE_LABEL, LABEL_SPACES, SYNTHIA_16_TRAIN_IDS
from pppc.errors import InputError
from pppc.processes import map_in_processes
from tqdm import tqdm

from . import looks
from .scenes import Style, random_scene
from .shapes import TRAIN_ID

MANIFEST_NAME = "demo_data.json"
_DRAWING_VERSION = 2  # to be raised when the same seed gives other pictures
_FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_STYLES = {
    name: Style(**values)
    for name, values in yaml.safe_load(Path(__file__).with_name("styles.yaml").read_text()).items()
}


@dataclass(frozen=True)
class DemoData:
    """What to make: images of `size` (width, height) in pixels, so many of each split.

    Dark Zurich's training images are pairs: as many by day as by night.
    """

    seed: int = 0
    size: tuple[int, int] = (320, 160)
    gta_train: int = 300
    synthia_train: int = 40
    cityscapes_train: int = 200
    cityscapes_val: int = 50
    dark_zurich_train: int = 40
    dark_zurich_val: int = 10
    dark_zurich_test: int = 8


def make_demo_data(output_dir: str | os.PathLike, data: DemoData, num_processes: int = 1) -> bool:
    """Write gta, synthia, cityscapes and dark_zurich below a folder that appears when it is whole.

    A folder that holds the same demo data is left as it is; returned is whether anything was made.

    Raises:
        InputError: the folder holds something else, or lies in a file.
    """
    output_dir = Path(output_dir)
    manifest = json.dumps({"drawing_version": _DRAWING_VERSION, **asdict(data)}, indent=1)
    if output_dir.is_file() or (output_dir.is_dir() and any(output_dir.iterdir())):
        manifest_file = output_dir / MANIFEST_NAME
        if manifest_file.is_file() and manifest_file.read_text() == manifest:
            return False
        raise InputError(
            f"{output_dir} exists and doesn't hold the demo data asked for "
            f"(its {MANIFEST_NAME} is missing or differs); name another folder or remove it"
        )
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{error.filename} is no folder: name another place") from error
    prefix = f".{output_dir.name}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=output_dir.parent) as unfinished:
        root = Path(unfinished) / "data"
        root.mkdir()
        drawings = _drawings(data, root)
        done = map_in_processes(_run, drawings, num_processes)
        for _ in tqdm(done, total=len(drawings), desc="drawing", unit="image"):
            pass
        _write_correspondences(root, data.dark_zurich_train)
        (root / MANIFEST_NAME).write_text(manifest)
        root.rename(output_dir)
    return True


def _run(drawing: partial) -> None:
    cv2.setNumThreads(1)  # the pool's processes share the cores
    drawing()


def _drawings(data: DemoData, root: Path) -> list[partial]:
    """One call for every image, or pair of images, to make."""
    splits = (
        (_gta, data.gta_train, {}),
        (_synthia, data.synthia_train, {}),
        (_cityscapes, data.cityscapes_train, {"split": "train"}),
        (_cityscapes, data.cityscapes_val, {"split": "val"}),
        (_dark_zurich, data.dark_zurich_train, {"split": "train"}),
        (_dark_zurich, data.dark_zurich_val, {"split": "val"}),
        (_dark_zurich, data.dark_zurich_test, {"split": "test"}),
    )
    return [
        partial(write, root, data.size, (data.seed, split_number, index), index, **arguments)
        for split_number, (write, count, arguments) in enumerate(splits)
        for index in range(count)
    ]


def _draw(style: str, frame, size, stream: tuple[int, ...], view: int = 0):
    """The image (H, W, 3) and train ids (H, W) of one street in one of its views."""
    scene = random_scene(_STYLES[style], np.random.default_rng((*stream, 0)))
    return frame(scene, size, np.random.default_rng((*stream, 1, view)))


def _label_ids(label: np.ndarray, label_space: str, void_id: int) -> np.ndarray:
    """Train ids to a data set's own ids."""
    table = np.full(256, void_id, np.uint8)
    for label_id, train_id in LABEL_SPACES[label_space].id_to_train_id.items():
        table[train_id] = label_id
    return table[label]


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write a gray or RGB image as PNG, 8 or 16 bits as it comes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = image if image.ndim == 2 else image[..., ::-1]
    if not cv2.imwrite(str(path), bgr, _FAST_PNG):
        raise OSError(f"could not write {path}")


def _gta(root: Path, size, stream, index: int) -> None:
    """images/00001.png; labels/00001.png, whose palette indices are the ids."""
    image, label = _draw("gta", looks.game_frame, size, stream)
    name = f"{index + 1:05d}.png"
    _write_image(root / "gta/images" / name, image)
    space = LABEL_SPACES["gta"]
    palette = np.zeros((256, 3), np.uint8)
    for label_id, train_id in space.id_to_train_id.items():
        palette[label_id] = space.colors[train_id]
    label_image = Image.fromarray(_label_ids(label, "gta", void_id=0))
    label_image.putpalette(palette.tobytes())
    path = root / "gta/labels" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    label_image.save(path, compress_level=1)


def _synthia(root: Path, size, stream, index: int) -> None:
    """RGB/0000000.png; GT/LABELS/0000000.png, 16 bits: ids in red, instances in green."""
    image, label = _draw("gta", looks.game_frame, size, stream)
    label[~np.isin(label, SYNTHIA_16_TRAIN_IDS)] = IGNORE_LABEL
    name = f"{index:07d}.png"
    _write_image(root / "synthia/RGB" / name, image)
    is_thing = (label >= TRAIN_ID["person"]) & (label != IGNORE_LABEL)
    _, instances = cv2.connectedComponents(is_thing.astype(np.uint8))
    ids = _label_ids(label, "synthia", void_id=0)
    channels = np.stack([ids, instances, np.zeros_like(ids)], axis=-1).astype(np.uint16)
    _write_image(root / "synthia/GT/LABELS" / name, channels)


def _cityscapes(root: Path, size, stream, index: int, split: str) -> None:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png, gtFine/SPLIT/CITY/*_gtFine_labelIds.png."""
    image, label = _draw("cityscapes", looks.car_photograph, size, stream)
    city = ("frankfurt", "lindau")[index % 2] if split == "val" else ("aachen", "bremen")[index % 2]
    name = f"{split}/{city}/{city}_{index:06d}_000019"
    _write_image(root / f"cityscapes/leftImg8bit/{name}_leftImg8bit.png", image)
    ids = _label_ids(label, "cityscapes", void_id=1)  # the own car
    _write_image(root / f"cityscapes/gtFine/{name}_gtFine_labelIds.png", ids)


_SEQUENCES = {"train": "GOPR0351", "val": "GOPR0356", "test": "GOPR0364"}


def _night_frame(split: str, index: int) -> str:
    sequence = _SEQUENCES[split]
    return f"{split}/night/{sequence}/{sequence}_frame_{index + 1:06d}"


def _day_frame(index: int) -> str:
    return f"train/day/GOPR0345/GOPR0345_frame_{3 * index + 100:06d}"


def _dark_zurich(root: Path, size, stream, index: int, split: str) -> None:
    """A street by night; with train ids in the validation split, in training by day as well."""
    name, folder = _night_frame(split, index), root / "dark_zurich"
    image, label = _draw("cityscapes", looks.night_drive, size, stream)
    _write_image(folder / f"rgb_anon/{name}_rgb_anon.png", image)
    if split == "val":
        _write_image(folder / f"gt/{name}_gt_labelTrainIds.png", label)
    if split == "train":  # from a camera nearby
        day, _ = _draw("cityscapes", looks.day_drive, size, stream, view=1)
        _write_image(folder / f"rgb_anon/{_day_frame(index)}_rgb_anon.png", day)


def _write_correspondences(root: Path, num_pairs: int) -> None:
    """corresp/train/night/SEQUENCE.csv: one row for each night frame, with its day frame."""
    folder = root / "dark_zurich/corresp/train/night"
    folder.mkdir(parents=True)
    rows = [f"{_night_frame('train', index)},{_day_frame(index)}\n" for index in range(num_pairs)]
    (folder / f"{_SEQUENCES['train']}.csv").write_text("".join(rows))
