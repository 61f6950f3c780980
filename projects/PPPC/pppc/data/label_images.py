"""Reading label images: the picture counts, not how a file happens to store it.

A program that stores a picture anew without loss (a smaller palette in another order, fewer bits,
colors for gray) changes no label, or the file is refused.

- The content must be PNG, TIFF, BMP, GIF or PNM, whole, of one page, and compressed without loss.
- Gray of 8 bits means its values. With 1, 2 or 4 bits it means the values that are shown (of 1 bit 0
  and 255), unless the stored numbers could be label IDs as well: that is refused.
- Gray of 16 bits means the values, or, where the data set's numbers end at 255, those of 8 bits that were
  stretched (all multiples of 257).
- A channel of transparency must say opaque.
"""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from .images import bits_of, number_of_pictures, open_whole, png_is_complete, pnm_maximum, turned

FORMATS = ("PNG", "TIFF", "BMP", "DIB", "GIF", "PPM")
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")  # Pillow's names of compressions
# To write labels with. Runs of equal bytes are all that there is to compress in them, and without filters
# they are decoded in half the time (filters took 8 to 16 % of the bytes).
PNG_OPTIONS = (
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE,
)  # fmt: skip
ADVICE = "Get the labels as PNG images of one 8-bit channel"


class LabelImage(NamedTuple):
    """A label image as stored.

    Attributes:
        values: ``(H, W)`` uint8: gray values, or numbers of colors; uint16: gray values of 16 bits.
        colors: ``(256, 3)`` uint8, RGB, by number; None: the values are gray values.
        num_colors: how many of them there are.
        has_palette: the numbers are those of a palette in the file, so that they may be label IDs.
        step: of gray with fewer than 8 bits, by which the stored numbers were multiplied to be the
            gray values that are shown; otherwise 1.
    """

    values: np.ndarray
    colors: np.ndarray | None = None
    has_palette: bool = False
    step: int = 1
    num_colors: int = 256


def read_label_image(path: str, wide: bool = False) -> LabelImage:
    """Decode a label image, turned as its camera says.

    Args:
        path: of the file.
        wide: gray of 16 bits may mean numbers above 255.

    Raises:
        InputError: it is of none of the kinds at the top.
    """
    content, image, orientation = open_whole(path)
    lossy = image.info.get("compression") in LOSSY_TIFF
    if image.format not in FORMATS or lossy:
        kind = "lossy TIFF" if lossy else image.format
        raise InputError(
            f"{path}: its content is {kind}, which changes label IDs when it is stored. {ADVICE}"
        )
    if (pictures := number_of_pictures(path, image)) > 1:
        raise InputError(f"{path}: holds {pictures} pictures. {ADVICE}")
    # Pillow stretches the values of a PNM of another maximum.
    if image.format == "PPM" and (maximum := pnm_maximum(content)) not in (255, 65535):
        raise InputError(
            f"{path}: its values end at {maximum}, which is neither 255 nor 65535. {ADVICE}"
        )
    if image.format == "PNG" and content[24] == 16:
        # Pillow would drop half the bits of colors.
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise InputError(f"{path}: not a whole image: get it again")
        if pixels.ndim == 3:
            pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]  # from OpenCV's order
    else:
        pixels = _decoded(path, image)
        if image.format == "TIFF":
            orientation = 1  # Pillow has turned it
    # Pillow fills what is missing with 0: the last rows, or of an interlaced image any.
    if image.format == "PNG" and (content[28] or not pixels[-1].any()):
        if not png_is_complete(content):
            raise InputError(f"{path}: not a whole image, rows are missing: get it again")
    if image.mode == "P":
        palette = np.zeros((256, 3), np.uint8)
        entries = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(entries)] = entries
        return LabelImage(turned(pixels, orientation), palette, True, num_colors=len(entries))
    if image.mode in ("1", "L"):
        bits = 1 if image.mode == "1" else bits_of(content, image)
        step = 255 // (2**bits - 1) if bits < 8 else 1
        return LabelImage(turned(pixels, orientation), step=step)
    return _of_pixels(path, turned(pixels, orientation), wide)


def _decoded(path: str, image: Image.Image) -> np.ndarray:
    if image.mode not in ("1", "L", "P", "I;16", "I;16B", "I", "LA", "RGB", "RGBA"):
        raise InputError(f"{path}: a label image of Pillow's mode {image.mode}. {ADVICE}")
    try:
        pixels = np.asarray(image)
    except Exception as error:  # decoders raise errors of many types
        raise InputError(f"{path}: not a whole image ({error}): get it again") from error
    return pixels.astype(np.uint8) * 255 if image.mode == "1" else pixels


def _of_pixels(path: str, pixels: np.ndarray, wide: bool) -> LabelImage:
    """Gray values or colors ``(H, W)`` or ``(H, W, 2 to 4)`` of any unsigned type."""
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        if (pixels[:, :, -1] != np.iinfo(pixels.dtype).max).any():
            raise InputError(f"{path}: has transparent pixels, which are no labels. {ADVICE}")
        pixels = pixels[:, :, :-1] if pixels.shape[2] == 4 else pixels[:, :, 0]
    if pixels.dtype != np.uint8:
        wide = wide and pixels.ndim == 2
        if pixels.max() > 255 and not wide and not (pixels % 257).any():
            pixels = pixels // 257
        dtype = np.uint16 if wide else np.uint8
        if pixels.min() < 0 or pixels.max() > np.iinfo(dtype).max:
            strange = pixels.min() if pixels.min() < 0 else pixels.max()
            raise InputError(
                f"{path}: holds the value {strange}, label IDs are from 0 to {np.iinfo(dtype).max}. Where "
                "higher numbers of 16 bits are meant, list them in names or label_mapping of a data file, "
                f"such as '24000-24999': person. Otherwise: {ADVICE}"
            )
        pixels = pixels.astype(dtype)
    if pixels.ndim == 3:
        return _of_colors(path, pixels)
    return LabelImage(np.ascontiguousarray(pixels))


def _of_colors(path: str, pixels: np.ndarray) -> LabelImage:
    four = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2RGBA)
    codes = four.view("<u4")[:, :, 0] & 0xFFFFFF
    is_there = np.zeros(2**24, bool)  # tables are ten times as fast as sorting
    is_there[codes] = True
    colors = np.flatnonzero(is_there)
    if len(colors) > 256:
        raise InputError(
            f"{path}: has {len(colors)} colors, so it is no label image, or was resized with "
            f"smoothing. {ADVICE}"
        )
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = np.stack([colors & 255, colors >> 8 & 255, colors >> 16], axis=1)
    numbers = np.zeros(2**24, np.uint8)
    numbers[colors] = np.arange(len(colors))
    return LabelImage(numbers[codes], palette)
