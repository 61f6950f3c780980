"""Reading images."""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import detection_utils
from PIL import ExifTags, Image

from ..errors import InputError

__all__ = ["image_size", "read_image"]


def image_size(path: str) -> tuple[int, int]:
    """(height, width) in pixels of an image or label, turned as its camera says; from the header.

    Raises:
        InputError: the file is no image, or can't be read; the message names it.
    """
    try:
        with Image.open(path) as image:
            # A PNG's own method decodes the whole file to see whether EXIF data follow the pixels.
            exif = Image.Image.getexif(image)
            turned = exif.get(ExifTags.Base.Orientation, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: can't be read as an image ({error})") from error


def read_image(path: str, image_format: str) -> np.ndarray:
    """An image, gray or coloured, turned as its camera says: ``(H, W, 3)`` uint8.

    OpenCV decodes a PNG in two thirds of the time that Detectron2's reader takes with PIL. Of a
    JPEG that was cut off it makes a whole picture without a word, so other files are left to PIL.

    Args:
        path: of the file.
        image_format: "RGB" or "BGR".

    Raises:
        InputError: the file is no whole image, or the format another one; the message names it.
    """
    if image_format not in ("RGB", "BGR"):
        raise InputError(f"INPUT.FORMAT is {image_format!r}: use RGB or BGR")
    if not path.lower().endswith(".png"):
        try:
            return detection_utils.read_image(path, image_format)
        except OSError as error:
            raise InputError(f"{path}: not a whole image ({error})") from error
    try:
        content = np.fromfile(path, np.uint8)  # OpenCV crashes at a path that is no text
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise InputError(f"{path}: not a whole image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image_format == "RGB" else image
