"""Images as the mappers read them."""

import io
import os
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from pppc.data.images import image_size, intensity_range, read_image, size_and_bits
from pppc.data.inspection import high_depth_images
from pppc.data.label_images import read_label_image
from pppc.errors import InputError


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "cut"])
def test_a_file_that_was_cut_off_is_named_whatever_its_name_says(kind, name, tmp_path):
    path = tmp_path / name
    pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, kind)
    assert read_image(str(path), "RGB").shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"{name}: .*"):
        read_image(str(path), "RGB")


def test_a_changed_byte_of_a_png_is_found(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="image.png: not a whole image"):
        read_image(str(path), "RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_images_are_turned_as_pillow_turns_them_and_so_is_their_size(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :16], pixels[16:, 32:] = 255, 100
    Image.fromarray(pixels).save(tmp_path / "image", kind, exif=exif)
    read = read_image(str(tmp_path / "image"), "RGB")
    with Image.open(tmp_path / "image") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (read == expected).all()
    assert image_size(str(tmp_path / "image")) == expected.shape[:2]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_more_than_8_bits_keep_their_contrast(tmp_path, kind, bits, channels):
    """A ramp over the bits that a camera uses becomes one over 0 to 255."""
    ramp = np.linspace(0, 2**bits - 1, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    paths = []
    for number, pixels in enumerate((ramp, ramp // 2)):
        path = str(tmp_path / f"{number}.{'png' if kind == 'PNG' else 'tif'}")
        cv2.imwrite(path, np.repeat(pixels[:, :, None], channels, axis=2))
        paths.append(path)
    expected = 255 * ramp[:, :, None].astype(float) / ramp.max()
    assert np.abs(read_image(paths[0], "RGB") - expected).max() <= 1
    intensities = intensity_range(paths, "percentiles")
    bright, dark = (read_image(path, "BGR", intensities).astype(float) for path in paths)
    assert np.abs(bright - expected).max() <= 1.5
    assert np.abs(dark - expected / 2).max() <= 1.5  # half as bright, as it was
    assert intensity_range(paths, "full_range") == (0, 65535)
    full = read_image(paths[0], "RGB", (0, 65535))
    assert np.abs(full - 255 / 65535 * ramp[:, :, None]).max() <= 0.5


def test_eight_bits_are_left_as_they_are(tmp_path):
    Image.new("RGB", (4, 4), (7, 8, 9)).save(tmp_path / "a.png")
    assert size_and_bits(str(tmp_path / "a.png")) == ((4, 4), 8)
    assert intensity_range([], "full_range") is None
    assert read_image(str(tmp_path / "a.png"), "RGB", (0, 9)).tolist()[0][0] == [7, 8, 9]


def test_kinds_that_are_read_by_a_rule(tmp_path):
    color = Image.new("RGB", (8, 8), (200, 100, 50))
    path = str(tmp_path / "image")
    for mode, kind, expected in [
        ("1", "PNG", (255, 255, 255)),
        ("LA", "PNG", (124, 124, 124)),
        ("RGBA", "PNG", (200, 100, 50)),
        ("RGBA", "WEBP", (200, 100, 50)),
        ("CMYK", "TIFF", (200, 100, 50)),
        ("CMYK", "JPEG", (200, 100, 50)),
        ("YCbCr", "JPEG", (200, 100, 50)),
        ("P", "GIF", (200, 100, 50)),
    ]:
        palette = Image.Palette.ADAPTIVE
        image = Image.new("1", (8, 8), 1) if mode == "1" else color.convert(mode, palette=palette)
        image.save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
        difference = np.abs(read_image(path, "RGB").astype(int) - expected)
        assert difference.max() <= (3 if kind == "JPEG" else 1), (mode, kind)
    color.save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.abs(read_image(path, "RGB").astype(int) - (200, 100, 50)).max() <= 3


def test_kinds_that_are_refused_by_name(tmp_path):
    path = tmp_path / "image.png"

    def refused(reason):
        with pytest.raises(InputError, match=f"image.png: .*{reason}"):
            read_image(str(path), "RGB")

    Image.new("F", (4, 4), 0.5).save(path, "TIFF")
    refused("float32 values is not read: convert it")
    Image.new("I", (4, 4), 70000).save(path, "TIFF")
    refused("int32 values")
    Image.new("LAB", (4, 4)).save(path, "TIFF")
    refused("mode LAB is not read")
    frames = [Image.new("L", (4, 4), value) for value in (0, 90)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])
    refused("holds 2 pictures")
    path.write_text("<html>not found</html>")
    refused("is a text, such as the page of a failed download: get it again")
    path.write_bytes(b"")
    refused("is empty")
    path.unlink()
    refused("No such file")
    path.mkdir()
    refused("Is a directory")


def test_a_decompression_bomb_is_named(tmp_path, monkeypatch):
    Image.new("L", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (image_size, lambda path: read_image(path, "RGB")):
        with pytest.raises(InputError, match=r"bomb.png: .*attack\. Cut it into smaller images"):
            read(str(tmp_path / "bomb.png"))


def test_another_format_is_an_error():
    with pytest.raises(ValueError, match="INPUT.FORMAT is 'HSV'"):
        read_image("image.png", "HSV")


def tiff(samples, photometric, extra=(), orientation=1):
    """A TIFF by its specification, uncompressed: ``(H, W, bands)`` of 8 or 16 bits."""
    height, width, bands = samples.shape
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    tags = {256: [width], 257: [height], 258: [8 * samples.itemsize] * bands, 259: [1],
            262: [photometric], 273: [0], 274: [orientation], 277: [bands], 278: [height], 279: [len(data)],
            338: [*extra]}  # fmt: skip
    tags = {key: values for key, values in tags.items() if values}
    start = 8 + 2 + 12 * len(tags) + 4
    offset = start + sum(2 * len(values) for values in tags.values() if len(values) > 2)
    tags[273] = [offset]
    entries, values_beside = b"", b""
    for key, values in tags.items():
        raw = struct.pack(f"<{len(values)}{'I' if key in (273, 279) else 'H'}", *values)
        if len(raw) > 4:
            values_beside += raw
            raw = struct.pack("<I", start + len(values_beside) - len(raw))
        kind = 4 if key in (273, 279) else 3
        entries += struct.pack("<HHI", key, kind, len(values)) + raw.ljust(4, b"\0")
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + values_beside + data
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bands", [1, 3])
def test_a_tiff_of_16_bits_is_turned_once(tmp_path, orientation, bands):
    pixels = np.zeros((32, 48, bands), np.uint16)
    pixels[:16, :16], pixels[16:, 32:] = 65535, 30000
    read = []
    for kind in (np.uint8, np.uint16):
        samples = pixels if kind is np.uint16 else pixels >> 8
        (tmp_path / "a.tif").write_bytes(
            tiff(samples.astype(kind), bands // 2 + 1, (), orientation)
        )
        read.append(read_image(str(tmp_path / "a.tif"), "RGB", (0, 65535)).astype(int))
        assert image_size(str(tmp_path / "a.tif")) == read[-1].shape[:2]
    assert read[0].shape == read[1].shape and np.abs(read[1] - read[0]).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("value", [b"6", "6", 0, 9, 77])
def test_an_orientation_that_makes_no_sense_turns_nothing(value, kind, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "image"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path, kind, exif=exif)
    monkeypatch.setattr(Image.Exif, "get", lambda self, tag, default=None: value)
    assert image_size(str(path)) == read_image(str(path), "RGB").shape[:2] == (4, 6)


@pytest.fixture(scope="module")
def photograph():
    """A JPEG with the detail of a photograph."""
    rng = np.random.default_rng(0)
    noise = rng.integers(256, size=(60, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 20}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_have_pillow_s_pixels(mode, options, tmp_path):
    path = str(tmp_path / "image.jpg")
    noise = np.random.default_rng(0).integers(256, size=(9, 13, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((131, 97)).convert(mode).save(path, "JPEG", **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert (read_image(path, "RGB") == expected).all()
    assert (read_image(path, "BGR") == expected[:, :, ::-1]).all()


def test_what_libjpeg_warns_of_is_named_and_what_follows_the_end_is_not(photograph, tmp_path):
    path = tmp_path / "image.jpg"
    half = len(photograph) // 2
    for damaged in (
        photograph[:half],
        photograph[:half] + bytes(half),
        photograph[:half] + b"\xff\xd9",
        photograph[:half] + bytes(2000) + photograph[half + 2000 :],
        photograph[:half] + b"\xff\xda" + photograph[half:],
        photograph[:-2],
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="image.jpg: not a whole image.*libjpeg: "):
            read_image(str(path), "RGB")
    path.write_bytes(photograph)
    expected = read_image(str(path), "RGB")
    rng = np.random.default_rng(0)
    for tail in (b"\xff\xda", photograph[:half], *(rng.bytes(30_000) for _ in range(10))):
        path.write_bytes(photograph + tail)
        assert (read_image(str(path), "RGB") == expected).all()


def test_a_png_with_a_large_color_profile_is_read(tmp_path):
    path = tmp_path / "image.png"
    profile = np.random.default_rng(0).bytes(3_000_000)
    Image.new("RGB", (4, 6), (7, 8, 9)).save(path, icc_profile=profile)
    assert image_size(str(path)) == (6, 4)
    assert (read_image(str(path), "RGB") == (7, 8, 9)).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("bands", "photometric", "extra"),
    [(1, 1, ()), (3, 2, ()), (4, 2, (2,)), (4, 2, (0,)), (5, 2, (0, 0)), (6, 2, (0, 0, 0))],
)
def test_one_rule_for_the_number_of_bands(bands, photometric, extra, kind, tmp_path):
    """One is gray, three are colors, one more is left out, and more are refused."""
    samples = np.random.default_rng(0).integers(256, size=(6, 5, bands)).astype(kind)
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(samples * (257 if kind is np.uint16 else 1), photometric, extra))
    if bands > 4:
        with pytest.raises(InputError, match=f"image.tif: (has {bands} bands|.*several bands)"):
            read_image(str(path), "RGB")
    else:
        expected = np.broadcast_to(samples[:, :, :3], (6, 5, 3))
        assert (read_image(str(path), "RGB", (0, 65535)) == expected).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_that_lacks_strips_is_named(kind, tmp_path):
    path = tmp_path / "image.tif"
    content = bytearray(tiff(np.zeros((6, 5, 1), kind), 1))
    path.write_bytes(content)
    assert read_image(str(path), "RGB").shape == (6, 5, 3)
    struct.pack_into("<H", content, 10 + 12 + 8, 600)  # the height; strips are of 6 rows
    path.write_bytes(content)
    for read in (read_label_image, lambda name: read_image(name, "RGB")):
        with pytest.raises(InputError, match="image.tif: not a whole image"):
            read(str(path))


@pytest.mark.parametrize(("kind", "bands"), [(b"P5", 1), (b"P6", 3)])
@pytest.mark.parametrize("maximum", [255, 1000, 65535])
def test_a_pnm_is_stretched_from_its_own_maximum(kind, bands, maximum, tmp_path):
    samples = np.random.default_rng(0).integers(maximum + 1, size=(6, 5, bands))
    path = tmp_path / "image.pnm"
    path.write_bytes(
        b"%s # made here\n5 6 %d\n" % (kind, maximum)
        + samples.astype(">u2" if maximum > 255 else np.uint8).tobytes()
    )
    read = read_image(str(path), "RGB", (0, 65535)).astype(int)
    assert np.abs(read - 255 * samples / maximum).max() <= 0.51


def test_files_that_only_begin_as_images_are_named(tmp_path):
    path = tmp_path / "image"
    pages = [Image.new("L", (4, 4), value) for value in (0, 90)]
    pages[0].save(path, "TIFF", save_all=True, append_images=pages[1:])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="image: (not a whole image|holds 2)"):
        read_image(str(path), "RGB")
    os.remove(path)
    os.mkfifo(path)
    for read in (image_size, lambda pipe: read_image(pipe, "RGB")):
        with pytest.raises(InputError, match="image: is no regular file"):
            read(str(path))


def test_tiffs_of_16_bits_whose_white_is_0_are_turned_round(tmp_path):
    samples = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10, 1)
    read = []
    for photometric in (0, 1):
        (tmp_path / "a.tif").write_bytes(tiff(samples, photometric))
        read.append(read_image(str(tmp_path / "a.tif"), "RGB", (0, 65535)).astype(int))
    assert np.abs(255 - read[0] - read[1]).max() <= 1


def test_one_image_of_16_bits_among_many_has_the_data_set_s_range(tmp_path):
    paths = []
    for number in range(60):
        paths.append(str(tmp_path / f"{number:02d}.png"))
        deep = number == 37
        cv2.imwrite(paths[-1], np.full((4, 4), 300 if deep else 3, np.uint16 if deep else np.uint8))
    assert high_depth_images(paths) == [paths[37]] and high_depth_images(paths[:30]) == []
    assert intensity_range(high_depth_images(paths), "percentiles") == (300, 300)
