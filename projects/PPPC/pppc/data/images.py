"""Reading photographs: what a file's content says, whatever its name says.

- The content must be whole: of a PNG every part's checksum is looked at, of a JPEG every warning of
  libjpeg is an error, other files must decode to their end. What comes behind a JPEG's or PNG's end
  (the film of a phone's photograph) is not looked at.
- An image is turned as its camera says (EXIF orientation; of a PNG its eXIf part alone).
- One band is gray, three are red, green and blue, four of CMYK are converted as Pillow does, as
  palettes and YCbCr are. One band more (transparency, or what a file gives no name) is left out; an
  image of more bands is refused.
- Of a phone's multi-picture JPEG the first picture counts; animations and files of several pages
  are refused.
- Of more than 8 bits a channel, a range of values is stretched to 0 to 255: see
  :func:`intensity_range`.
- Other kinds (floating point, LAB, ...) are refused by name.
"""

import io
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, BinaryIO

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageFile, PngImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow's modes of 8 bits that it converts to RGB.
COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
# Color profiles of printers take megabytes; Pillow opens no PNG with one of more than 1 MB.
PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 64 * 2**20)
# Shares of a data set's values that are above and below the range, in percent.
PERCENTILES = (0.1, 99.9)
SAMPLE_FILES, SAMPLE_PIXELS = 16, 100_000  # for a range of values: files, pixels of each


def image_size(path: str) -> tuple[int, int]:
    """(height, width) in pixels of an image or label, turned as its camera says; from the header.

    InputError names a file that is no image, or can't be read.
    """
    return size_and_bits(path)[0]


def size_and_bits(path: str) -> tuple[tuple[int, int], int]:
    """:func:`image_size`, and how many bits a channel has (:func:`bits_of`), from the header."""
    try:
        with _regular_file(path) as file:
            start = file.read(4096)
            file.seek(0)
            image = _open(path, file)
            width, height = image.size
            if isinstance(image, TiffImageFile):  # Pillow's size is turned already
                width, height = image.tag_v2[256], image.tag_v2[257]
            turned = _orientation(image) >= 5
            return (width, height) if turned else (height, width), bits_of(start, image)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error


def open_whole(path: str) -> tuple[bytes, ImageFile.ImageFile, int]:
    """A file's content, its image, of which only the header is decoded, and EXIF's orientation.

    Raises:
        InputError: the file is no image, can't be read, or is a PNG with a part that was cut off or
            changed; the message names it.
    """
    try:
        with _regular_file(path) as file:
            content = file.read()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error})") from error
    image = _open(path, io.BytesIO(content))
    cut = image.format == "PNG" and not _is_whole_png(content)
    if cut or (isinstance(image, TiffImageFile) and not _has_all_parts(image.tag_v2)):
        raise InputError(f"{path}: not a whole image, a part was cut off or changed: get it again")
    return content, image, _orientation(image)


def _regular_file(path: str) -> BinaryIO:
    """A file to read from; a pipe would be waited for without end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{path}: is no regular file: remove it")
    return open(path, "rb")


def _open(path: str, file: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(file)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}. Cut it into smaller images") from error
    # Pillow's readers raise errors of many types where a header makes no sense.
    except Exception as error:
        file.seek(0)
        start = file.read(64)
        what = "is no image that can be read: get it again, or convert it to PNG or JPEG"
        if not start:
            what = "is empty: get it again"
        elif start[4:8] == b"ftyp":
            what = "is a film, or an image such as HEIC that is not read: convert it to PNG or JPEG"
        elif start.lstrip().startswith(b"<"):
            what = "is a text, such as the page of a failed download: get it again"
        elif start.startswith((b"II*\0", b"MM\0*")):
            what = (
                "is a TIFF that can't be read, damaged or of a kind such as several bands of 16 bits: "
                "get it again, or convert it to RGB or gray of 8 or 16 bits"
            )
        elif start.startswith(b"version https://git-lfs"):
            what = "is a pointer of Git LFS, not the image: run git lfs pull"
        raise InputError(f"{path}: {what}") from error


def _png_parts(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """The kind of each part of a PNG, kind and data together, and the checksum that it should have."""
    view, position = memoryview(content), len(PNG_SIGNATURE)
    while position + 12 <= len(content):
        end = position + 8 + int.from_bytes(view[position : position + 4], "big")
        part = view[position + 4 : end]
        yield bytes(part[:4]), part, int.from_bytes(view[end : end + 4], "big")
        position = end + 4


def _is_whole_png(content: bytes) -> bool:
    """Whether all parts of a PNG have their checksums, to the last one."""
    for kind, part, checksum in _png_parts(content):
        if zlib.crc32(part) != checksum:
            return False
        if kind == b"IEND":
            return True
    return False


def _has_all_parts(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF has as many strips or tiles as its size calls for; decoders invent the rest."""
    try:
        planes = tags[277] if tags.get(284) == 2 else 1
        if 324 in tags:
            parts = math.ceil(tags[256] / tags[322]) * math.ceil(tags[257] / tags[323])
            return len(tags[324]) >= parts * planes
        parts = math.ceil(tags[257] / min(tags.get(278, tags[257]), tags[257]))
        return len(tags[273]) >= parts * planes
    except (KeyError, TypeError, ZeroDivisionError):
        return False


def png_is_complete(content: bytes) -> bool:
    """Whether the pixels of a PNG whose parts are whole fill all of its rows."""
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    bits = content[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[content[25]]
    passes = [(0, 0, 1, 1)]
    if content[28]:  # interlaced: seven passes, by their first column and row, and steps
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                  (0, 1, 1, 2)]  # fmt: skip
    expected = 0
    for left, top, step_x, step_y in passes:
        columns, rows = -((left - width) // step_x), -((top - height) // step_y)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)
    data = b"".join(part[4:] for kind, part, _ in _png_parts(content) if kind == b"IDAT")
    try:
        return len(zlib.decompressobj().decompress(data, expected)) >= expected
    except zlib.error:
        return False


def number_of_pictures(path: str, image: Image.Image) -> int:
    """How many pictures or pages an opened file holds; InputError: a later one is damaged."""
    try:
        return getattr(image, "n_frames", 1)
    except Exception as error:  # decoders raise errors of many types
        raise InputError(f"{path}: not a whole image ({error}): get it again") from error


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF's number from 1, as it is, to 8; of an image that was only opened."""
    try:
        exif = Image.Exif() if image.format == "PNG" else image.getexif()
        if image.format == "PNG" and image.fp:  # Pillow would decode all of it first
            exif.load(_png_exif(image.fp))
        number = exif.get(ExifTags.Base.Orientation, 1)
        return number if isinstance(number, int) and 1 <= number <= 8 else 1
    except Exception:  # of many types: metadata that make no sense turn nothing
        return 1


def _png_exif(file: IO[bytes]) -> bytes:
    """The EXIF part of a PNG, b"" where it has none."""
    position = len(PNG_SIGNATURE)
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return b""
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            return file.read(size)
        position += size + 12


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels ``(H, W, ...)`` as stored, turned by EXIF's number."""
    turns = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.swapaxes(0, 1),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(pixels),
    }
    turn = turns.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn())


def read_image(
    path: str, image_format: str, intensities: Sequence[float] | None = None
) -> np.ndarray:
    """A photograph, gray or colored: ``(H, W, 3)`` uint8; the rules are at the top of the file.

    Args:
        path: of the file.
        image_format: "RGB" or "BGR".
        intensities: of an image of more than 8 bits, the values that become 0 and 255; of a trained
            model ``model.intensities`` has them. None, or 0 and 0: its own percentiles 0.1 and 99.9.

    Raises:
        InputError: the file is no whole image or of a kind that is refused; the message names it.
    """
    if image_format not in ("RGB", "BGR"):
        raise InputError(f"INPUT.FORMAT is {image_format!r}: use RGB or BGR")
    content, image, orientation = open_whole(path)
    pictures = 1 if image.format == "MPO" else number_of_pictures(path, image)
    if pictures > 1:
        raise InputError(f"{path}: holds {pictures} pictures: store each in a file of its own")
    if image.format == "TIFF":
        orientation = 1  # Pillow and OpenCV turn it
    _check_bands(path, image)
    order = image_format  # of the channels, as decoded
    pixels: np.ndarray | None
    if bits_of(content, image) > 8:
        order, pixels = "BGR", _stretched(_high_depth(path, content, image), intensities)
    elif image.format == "PNG":
        # OpenCV decodes a PNG in two thirds of Pillow's time.
        color = cv2.IMREAD_COLOR_RGB if image_format == "RGB" else cv2.IMREAD_COLOR_BGR
        pixels = cv2.imdecode(
            np.frombuffer(content, np.uint8), color | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if pixels is None:
            raise InputError(f"{path}: not a whole image: get it again")
    elif image.format in ("JPEG", "MPO") and image.mode != "CMYK":
        pixels = _jpeg(path, content, image_format)
    else:
        order, pixels = "RGB", _decoded(path, image)
        if image.mode == "CMYK" and image.format == "JPEG":
            _jpeg(path, content, "CMYK")
    pixels = np.ascontiguousarray(turned(pixels, orientation))
    return pixels if order == image_format else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)


def _check_bands(path: str, image: ImageFile.ImageFile) -> None:
    """Raises InputError for more bands than the rule at the top allows; Pillow would drop some."""
    bands = image.tag_v2.get(277, 1) if isinstance(image, TiffImageFile) else 1
    if bands > 4:
        raise InputError(
            f"{path}: has {bands} bands, images have one (gray) or three (red, green, blue), and one "
            "of transparency: store the three to be used"
        )


def _jpeg(path: str, content: bytes, order: str) -> np.ndarray:
    """``(H, W, 3)`` uint8, ``(H, W, 4)`` of "CMYK"; what libjpeg warns of is damage."""
    try:
        return simplejpeg.decode_jpeg(content, order)
    except ValueError as error:
        raise InputError(
            f"{path}: not a whole image, a part was cut off or changed (libjpeg: {error}): get it again"
        ) from error


def _decoded(path: str, image: Image.Image) -> np.ndarray:
    """``(H, W, 3)`` uint8, RGB, as stored."""
    if image.mode not in COLOR_MODES:
        raise InputError(
            f"{path}: a {image.format} image of Pillow's mode {image.mode} is not read: convert it "
            "to RGB or gray of 8 or 16 bits"
        )
    return _as_array(path, image, ("RGBA", "RGB") if "transparency" in image.info else ("RGB",))


def _as_array(path: str, image: Image.Image, modes: Sequence[str] = ()) -> np.ndarray:
    """The pixels of an image after conversion to some of Pillow's modes."""
    try:
        for mode in modes:
            image = image.convert(mode)
        return np.asarray(image)
    except Exception as error:  # decoders raise errors of many types
        raise InputError(f"{path}: not a whole image ({error}): get it again") from error


def bits_of(content: bytes, image: Image.Image) -> int:
    """Bits of a channel, more than 8 for floating point, too; the start of the content will do."""
    if image.format == "PNG":
        return content[24]
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(258, (1,)))
    if image.format == "PPM":
        return 16 if pnm_maximum(content) > 255 else 8
    return 16 if image.mode.startswith(("I", "F")) else 8


def pnm_maximum(content: bytes) -> int:
    """The value that a PNM shows as white, from its header; 255 for kinds that name none."""
    header = re.sub(rb"#[^\r\n]*", b"", content[:4096]).split(maxsplit=4)
    return int(header[3]) if header[0] in (b"P2", b"P3", b"P5", b"P6") and header[3:] else 255


def _high_depth(path: str, content: bytes, image: Image.Image) -> np.ndarray:
    """``(H, W, 3)`` uint16, BGR, as stored; TIFFs are turned."""
    tiff = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    pixels: np.ndarray | None
    if image.format == "JPEG2000":  # OpenCV's values are others
        pixels = _as_array(path, image).astype(np.uint16)
    else:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    kind = "" if pixels is None or pixels.dtype == np.uint16 else f"of {pixels.dtype} values "
    if tiff.get(284) == 2:
        kind = "with a plane for each channel "
    if kind:
        raise InputError(
            f"{path}: a {image.format} image {kind}is not read: convert it to RGB or gray of 8 or 16 "
            "bits"
        )
    if pixels is None:
        raise InputError(f"{path}: not a whole image, or of a kind that is not read: get it again")
    if tiff.get(262) == 0:  # white is 0
        pixels = 65535 - pixels
    if image.format == "PPM":
        pixels = (pixels * np.float32(65535 / pnm_maximum(content))).round().astype(np.uint16)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels[:, :, :3]


def _stretched(pixels: np.ndarray, intensities: Sequence[float] | None) -> np.ndarray:
    """uint16 to uint8, a range of values to 0 to 255."""
    low, high = map(float, (0, 0) if intensities is None else intensities)
    if low == high == 0:
        low, high = np.percentile(pixels, PERCENTILES)
    values = (np.arange(2**16) - low) * (255 / max(high - low, 1))
    return np.clip(values.round(), 0, 255).astype(np.uint8)[pixels]


def intensity_range(paths: Sequence[str], rule: str) -> tuple[float, float] | None:
    """The values of a data set's images of more than 8 bits that become 0 and 255; None: no image tells.

    One range for the whole data set keeps differences of brightness between its images.

    Args:
        paths: of those images.
        rule: "full_range", 0 to 65535; or "percentiles", 0.1 and 99.9 of the pixels of some images,
            evenly spaced over the data set, since cameras use 10, 12 or 14 of 16 bits.
    """
    if not paths:
        return None
    if rule == "full_range":
        return 0.0, float(2**16 - 1)
    values = []
    for path in paths[:: max(1, len(paths) // SAMPLE_FILES)]:
        try:
            pixels = _high_depth(path, *open_whole(path)[:2]).ravel()
        except InputError:
            continue
        values.append(pixels[:: max(1, pixels.size // SAMPLE_PIXELS)])
    if not values:
        return None
    low, high = np.percentile(np.concatenate(values), PERCENTILES)
    return float(low), float(high)
