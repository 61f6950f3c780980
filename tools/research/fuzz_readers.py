#!/usr/bin/env python3
"""Change files of every kind that is read, and see that each is read rightly or named in one line.

    tools/research/fuzz_readers.py [--mutants 20000] [--seed 0] [--nproc N]

Photographs and label images (PNG, JPEG, TIFF, BMP, GIF, WebP, PNM), configurations, metrics.json and
checkpoints are made, and changed by a seeded rule: bits, cuts, holes, tails, headers, bytes of another
file, swapped palettes. What is then read must be what Pillow, PyYAML, json, PyTorch or safetensors
read, or the original; everything else is one InputError that names the file. A mutant may take 20 s
of a core. Prints a table by kind; the exit status is 1 where a mutant was read otherwise, crashed or hung.
"""

import faulthandler
import io
import json
import os
import pickle
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pppc
import torch
import yaml
from PIL import Image, ImageOps
from pppc.arguments import ToolParser, whole_number
from pppc.checkpoints.reading import read_weights
from pppc.data.images import image_size, read_image
from pppc.data.label_images import read_label_image
from pppc.data.labels import TOLERANCE, LabelReader
from pppc.data.train_ids import LABEL_SPACES
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError, run_tool
from safetensors.torch import load_file, save
from tabulate import tabulate

SECONDS = 20  # of a core, for a mutant; more is a hang
CHUNK = 50  # mutants of a task
SPACE = LABEL_SPACES["gta"]
CONFIG = b"""\
SEED: 7
SOLVER:
  MAX_ITER: 600
  BASE_LR: 6.0e-05
INPUT:
  CROP: {SIZE: [64, 96]}
  MIN_SIZE_TRAIN: (64, 80)
PPPC:
  CONTRAST: {ENABLED: false}
"""
READER = LabelReader("gta", train_ids=False)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        content: of a sound file.
        name: of the file.
        wrong: what is wrong with how a file is read, given its path and the sound content; "" for
            nothing. InputError: it is not read.
    """

    content: bytes
    name: str
    wrong: Callable[[str, bytes], str]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def kinds() -> dict[str, Kind]:
    """Sound files of every kind, by their names in the table."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(256, size=(9, 12, 3), dtype=np.uint8)).resize((61, 47))
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 200
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "PNG": encoded(photo, "PNG", exif=exif),
        "PNG, palette": encoded(photo.quantize(40), "PNG", transparency=3),
        "PNG, 16 bits": encoded(Image.fromarray(deep), "PNG"),
        "JPEG": encoded(photo, "JPEG", exif=exif),
        "JPEG, progressive": encoded(photo, "JPEG", progressive=True),
        "JPEG, gray": encoded(photo.convert("L"), "JPEG"),
        "JPEG, CMYK": encoded(photo.convert("CMYK"), "JPEG"),
        "TIFF": encoded(photo, "TIFF"),
        "TIFF, LZW": encoded(photo, "TIFF", compression="tiff_lzw"),
        "TIFF, 16 bits": encoded(Image.fromarray(deep), "TIFF"),
        "BMP": encoded(photo, "BMP"),
        "GIF": encoded(photo.quantize(40), "GIF"),
        "PPM": encoded(photo, "PPM"),
        "WebP": encoded(photo, "WEBP", quality=80),
        "WebP, lossless": encoded(photo.convert("RGBA"), "WEBP", lossless=True),
    }
    # A car's color and a pole's are void IDs', too: by the colors alone they could not be read.
    ids = (
        rng.choice(sorted(SPACE.id_to_train_id.keys() - {17, 26}), (12, 16))
        .repeat(3, 0)
        .repeat(4, 1)
    )
    gray = Image.fromarray(ids.astype(np.uint8))
    own = gray.copy()
    own.putpalette(bytes(channel for i in range(256) for channel in own_color(i)))
    labels = {
        "PNG": encoded(gray, "PNG"),
        "PNG, palette": encoded(own, "PNG"),
        "TIFF": encoded(gray, "TIFF"),
        "TIFF, deflate": encoded(gray, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, palette": encoded(own, "TIFF"),
        "BMP, palette": encoded(own, "BMP"),
        "GIF, palette": encoded(own, "GIF"),
        "PGM": encoded(gray, "PPM"),
    }
    found = {f"image {name}": Kind(c, "image", wrong_image) for name, c in images.items()}
    found |= {f"label {name}": Kind(c, "label", wrong_label) for name, c in labels.items()}
    lines = [{"iteration": i, "total_loss": i / 3, "lr": 1e-5, "note": "\u00e4"} for i in range(9)]
    state = {"layer.weight": torch.arange(12.0).view(3, 4), "layer.bias": torch.ones(3)}
    checkpoint = io.BytesIO()
    torch.save({"model": state, "iteration": 3, "class_names": ["a", "b"]}, checkpoint)
    legacy = io.BytesIO()
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    return found | {
        "YAML": Kind(CONFIG, "config.yaml", wrong_config),
        "metrics.json": Kind(
            "".join(json.dumps(line) + "\n" for line in lines).encode(),
            "metrics.json",
            wrong_metrics,
        ),
        "checkpoint": Kind(checkpoint.getvalue(), "model.pth", wrong_checkpoint),
        "checkpoint, before ZIP": Kind(legacy.getvalue(), "model.pth", unlike_torch),
        "checkpoint, safetensors": Kind(save(state), "model.safetensors", unlike_safetensors),
        "checkpoint, Detectron2": Kind(
            pickle.dumps({"model": arrays, "__author__": "x"}), "model.pkl", unlike_pickle
        ),
    }


def own_color(label_id: int) -> tuple[int, ...]:
    if label_id in SPACE.id_to_train_id:
        return SPACE.colors[SPACE.id_to_train_id[label_id]]
    return SPACE.id_colors.get(label_id, (0, 0, 0))


# The rules by which files are read, in short and by other libraries.


def shown(path: str) -> np.ndarray:
    """A picture as Pillow shows it, ``(H, W, 3)``; values of 16 bits from 0 to 255, not rounded."""
    with Image.open(path) as image:
        try:
            image = ImageOps.exif_transpose(image)
        except SyntaxError:  # metadata that make no sense turn nothing
            pass
        if image.mode.startswith("I"):
            return np.repeat(np.asarray(image)[:, :, None] / 257, 3, axis=2)
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert("RGB")).astype(float)


def unlike_pillow(path: str, pixels: np.ndarray, tolerance: float) -> str:
    try:
        expected = shown(path)
    except Exception as error:  # of any kind
        return f"was read, and Pillow says {error!r}"
    if expected.shape != pixels.shape or np.abs(expected - pixels).max() > tolerance:
        return "has other pixels than Pillow's"
    return ""


def wrong_image(path: str, sound: bytes) -> str:
    pixels = read_image(path, "RGB", (0, 65535))
    if image_size(path) != pixels.shape[:2]:
        return "has another size by its header"
    return unlike_pillow(path, pixels, 0.51)


def wrong_label(path: str, sound: bytes) -> str:
    """Each pixel must have a meaning of its gray value, its color or its palette's number."""
    image = read_label_image(path)
    values = image.values
    colors = np.repeat(values[:, :, None], 3, 2) if image.colors is None else image.colors[values]
    if problem := unlike_pillow(path, colors, 0):
        return problem
    label = READER.read(path)
    pairs = {
        (int(value), *map(int, color), int(train_id))
        for value, color, train_id in zip(values.flat, colors.reshape(-1, 3), label.flat)
    }
    for value, red, green, blue, train_id in pairs:
        color = np.array([red, green, blue])
        if red == green == blue and means(red) == train_id:
            continue
        if image.has_palette and means(value) == train_id:
            continue
        if means(value // image.step) == train_id:
            continue
        near = [i for i in range(35) if (abs(color - own_color(i)) <= TOLERANCE).all()]
        if train_id not in map(means, near):
            return f"has train ID {train_id} for value {value}, color {color}"
    return ""


def means(label_id: int) -> int | None:
    if label_id in SPACE.id_to_train_id:
        return SPACE.id_to_train_id[label_id]
    return SPACE.ignore_label if label_id in SPACE.void_ids else None


def leaves(section: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for key, value in section.items():
        below = (
            leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
        found |= below
    return found


def wrong_config(path: str, sound: bytes) -> str:
    cfg = leaves(pppc.load_config(path))
    given = yaml.safe_load(Path(path).read_text()) or {}
    for key, value in leaves(given).items():
        if value is None and key not in cfg:  # a section without a key
            continue
        if (
            json.dumps(cfg[key]) != json.dumps(value)
            and cfg[key] != value
            and str(value) != cfg[key]
        ):
            try:  # "(1, 2)" and "1e-5" are texts in YAML
                if tuple(yaml.safe_load(str(value).translate({40: 91, 41: 93}))) == tuple(cfg[key]):
                    continue
            except TypeError:
                if float(value) == cfg[key]:
                    continue
            return f"{key} is {cfg[key]!r}, the file says {value!r}"
    return ""


def wrong_metrics(path: str, sound: bytes) -> str:
    read = RunFolder(os.path.dirname(path)).metrics()
    expected = []
    for line in Path(path).read_bytes().decode(errors="replace").splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and type(content.get("iteration")) is int:
            expected.append(content)
    return "" if repr(read) == repr(expected) else "has other lines than json's"


def unlike(found: dict, expected: dict) -> str:
    same = found.keys() == expected.keys() and all(
        torch.equal(torch.as_tensor(expected[key]).nan_to_num(), found[key].nan_to_num())
        for key in found
    )
    return "" if same else "has other tensors"


def wrong_checkpoint(path: str, sound: bytes) -> str:
    content = torch.load(io.BytesIO(sound), weights_only=True)
    return unlike(read_weights(path)["model"], content["model"])


def unlike_torch(path: str, sound: bytes) -> str:
    """What is no tensor is left out, so that torch may refuse what is read."""
    found = read_weights(path)["model"]
    try:
        expected = torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        expected = torch.load(io.BytesIO(sound), weights_only=True)
    return unlike(found, expected)


def unlike_safetensors(path: str, sound: bytes) -> str:
    return unlike(read_weights(path)["model"], load_file(path))


def unlike_pickle(path: str, sound: bytes) -> str:
    """Nothing but what was admitted has been built, so that pickle can build it again."""
    found = read_weights(path)["model"]
    content = pickle.loads(Path(path).read_bytes(), encoding="latin1")
    return unlike(found, content.get("model", content))


# Mutants.


def mutant(content: bytes, rng: np.random.Generator) -> bytes:
    """A content with one to three changes; of half of the PNGs the checksums are set right."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if changed:
            changes[rng.integers(len(changes))](changed, rng)
    if content.startswith(b"\x89PNG") and rng.random() < 0.5:
        mend_checksums(changed)
    return bytes(changed)


def mend_checksums(png: bytearray) -> None:
    position = 8
    while position + 12 <= len(png):
        end = position + 8 + int.from_bytes(png[position : position + 4], "big")
        png[end : end + 4] = zlib.crc32(png[position + 4 : end]).to_bytes(4, "big")
        position = end + 4


def flip_bits(content: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(len(content), size=rng.integers(1, 9)):
        content[place] ^= 1 << rng.integers(8)


def change_header(content: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(min(64, len(content)), size=rng.integers(1, 4)):
        content[place] = rng.integers(256)


def cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[rng.integers(len(content)) :]


def make_hole(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    end = min(len(content), start + int(rng.integers(1, 200)))
    content[start:end] = bytes(end - start) if rng.random() < 0.5 else rng.bytes(end - start)


def leave_out(content: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(content)))
    del content[start : start + int(rng.integers(1, 50))]


def add_tail(content: bytearray, rng: np.random.Generator) -> None:
    tail = rng.bytes(rng.integers(1, 3000))
    content += (tail, bytes(len(tail)), bytes(content))[rng.integers(3)]


def mix_with_another(content: bytearray, rng: np.random.Generator) -> None:
    others = list(kinds().values())
    other = others[rng.integers(len(others))].content
    place = int(rng.integers(len(content)))
    content[place:] = other[place:]


def swap_palette(content: bytearray, rng: np.random.Generator) -> None:
    """Two colors of a PNG's palette, with the checksum set right; of other files two triples."""
    start = content.find(b"PLTE") + 4
    is_png = start > 3
    number = int.from_bytes(content[start - 8 : start - 4], "big") // 3 if is_png else 100
    if number < 2 or len(content) < start + 3 * number + 4:
        return
    first, second = (start + 3 * int(i) for i in rng.integers(min(number, 40), size=2))
    one, other = content[first : first + 3], content[second : second + 3]
    content[first : first + 3], content[second : second + 3] = other, one
    if is_png:
        end = start + 3 * number
        content[end : end + 4] = zlib.crc32(content[start - 4 : end]).to_bytes(4, "big")


changes = [flip_bits, change_header, cut, make_hole, leave_out, add_tail, mix_with_another,
           swap_palette]  # fmt: skip


def try_mutant(kind: str, seed: int, number: int, folder: str) -> tuple[str, str]:
    """What became of a mutant, "read", "refused" or "wrong", and what is wrong with it."""
    content, name, wrong = kinds()[kind]
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode()), number))
    path = os.path.join(folder, name)
    Path(path).write_bytes(mutant(content, rng))
    try:
        problem = wrong(path, content)
    except InputError as error:
        text = str(error)
        whole = path in text and len(text.splitlines()) == 1
        return ("refused", "") if whole else ("wrong", f"its error does not name it: {text}")
    except BaseException:  # of any kind: that is what is looked for
        return "wrong", traceback.format_exc()
    return ("wrong", problem) if problem else ("read", "")


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _prepare() -> None:
    """Decoders print what they find on the standard error."""
    log = os.open(os.devnull, os.O_WRONLY)
    faulthandler.enable(file=os.fdopen(os.dup(2), "w"))
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _too_slow)


def try_chunk(kind: str, seed: int, numbers: range) -> list[tuple[int, str, str]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            found.append((number, *try_mutant(kind, seed, number, folder)))
            signal.setitimer(signal.ITIMER_PROF, 0)
    return found


def main() -> int:
    parser = ToolParser(__doc__)
    parser.add_argument("--mutants", type=whole_number(1), default=20_000, help="(%(default)s)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="(%(default)s)")
    parser.add_argument("--nproc", type=whole_number(1), default=os.cpu_count(), help="processes")
    arguments = parser.parse_args()
    each = -(-arguments.mutants // len(kinds()))
    counts: dict[str, Counter] = {kind: Counter() for kind in kinds()}
    problems = []
    with ProcessPoolExecutor(arguments.nproc, get_context("spawn"), _prepare) as pool:
        tasks = {
            pool.submit(try_chunk, kind, arguments.seed, range(i, min(each, i + CHUNK))): kind
            for i in range(0, each, CHUNK)
            for kind in kinds()
        }
        for task in as_completed(tasks):  # BrokenProcessPool: a decoder crashed
            for number, result, problem in task.result():
                counts[tasks[task]][result] += 1
                if problem:
                    problems.append(f"{tasks[task]}, mutant {number}: {problem}")
    results = ("read", "refused", "wrong")
    rows = [[kind, *(count[result] for result in results)] for kind, count in counts.items()]
    total = ["all", *(sum(count[result] for count in counts.values()) for result in results)]
    print(tabulate([*rows, total], headers=["kind", *results], tablefmt="pipe"))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    run_tool(main)
