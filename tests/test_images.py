"""Images as the mappers read them."""

import numpy as np
import pytest
from PIL import Image

from pppc.data.images import read_image


def test_channels_orientation_and_kinds_of_files(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "image.png")
    assert (read_image(str(tmp_path / "image.png"), "RGB") == pixels).all()
    assert (read_image(str(tmp_path / "image.png"), "BGR") == pixels[:, :, ::-1]).all()
    image.putalpha(7)
    image.save(tmp_path / "alpha.png")
    assert (read_image(str(tmp_path / "alpha.png"), "RGB") == pixels).all()
    gray = Image.fromarray(pixels[:, :, 0])
    gray.save(tmp_path / "gray.png")
    assert (read_image(str(tmp_path / "gray.png"), "RGB") == pixels[:, :, :1]).all()
    sixteen_bits = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 256)
    sixteen_bits.save(tmp_path / "sixteen.png")
    assert (read_image(str(tmp_path / "sixteen.png"), "RGB") == pixels[:, :, :1]).all()
    gray.convert("P").save(tmp_path / "palette.png")
    assert (read_image(str(tmp_path / "palette.png"), "RGB") == pixels[:, :, :1]).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(str(tmp_path / "turned.jpg"), "RGB").shape == (6, 4, 3)


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_file_that_was_cut_off_is_named(kind, tmp_path):
    path = tmp_path / f"cut.{kind}"
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, ValueError), match=rf"cut\.{kind}: .*not a whole image"):
        read_image(str(path), "RGB")


def test_another_format_is_an_error():
    with pytest.raises(ValueError, match="INPUT.FORMAT is 'HSV'"):
        read_image("image.png", "HSV")
