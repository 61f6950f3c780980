"""A label image means its picture: whatever stores it without loss changes no label."""

import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from pppc.data.label_images import read_label_image
from pppc.data.labels import LabelReader
from pppc.data.train_ids import CITYSCAPES_COLORS, LABEL_SPACES, LabelSpace
from pppc.errors import InputError


def png(path, samples, bits, color_type=0, palette=None, interlace=0, extra=()):
    """Write a PNG by its specification: (H, W) or (H, W, channels) samples of so many bits."""
    height, width = samples.shape[:2]

    def part(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    rows = b""
    for row in samples.reshape(height, -1):
        packed = np.unpackbits(row.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, -bits:]
        rows += b"\0" + np.packbits(packed.ravel()).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, interlace)
    parts = [part(b"IHDR", header)]
    if palette is not None:
        parts.append(part(b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    parts += [part(*given) for given in extra]
    parts += [part(b"IDAT", zlib.compress(rows)), part(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def palettes_of(colors):
    """Palettes of a picture's colors in several orders and sizes, as optimizers write them."""
    used = sorted({tuple(map(int, color)) for color in colors.reshape(-1, 3)})
    rng = np.random.default_rng(0)
    for order in (used, used[::-1], [used[i] for i in rng.permutation(len(used))]):
        yield order
        yield [*order, *[(1, 2, 3)] * (16 - len(order) % 16)]


def encodings(path, colors):
    """All lossless PNGs of a picture (H, W, 3) that are written here; yields what each is."""
    gray = colors[:, :, 0] if (colors == colors[:, :, :1]).all() else None
    for palette in palettes_of(colors):
        index = {color: i for i, color in reversed(list(enumerate(palette)))}
        numbers = np.array([[index[tuple(map(int, c))] for c in row] for row in colors])
        for bits in (1, 2, 4, 8):
            if len(palette) <= 2**bits:
                png(path, numbers, bits, 3, palette)
                yield f"palette of {len(palette)}, {bits} bits"
                png(path, numbers, bits, 3, palette, extra=[(b"tRNS", b"\xff" * len(palette))])
                yield "opaque palette"
    opaque = np.full(colors.shape[:2], 255)[..., None]
    png(path, colors, 8, 2)
    yield "RGB"
    png(path, np.concatenate([colors, opaque], axis=2), 8, 6)
    yield "RGBA"
    Image.fromarray(colors).save(path, "BMP")
    yield "BMP"
    Image.fromarray(colors).save(path, "TIFF", compression="tiff_lzw")
    yield "TIFF"
    png(path, colors.astype(int) * 257, 16, 2)
    yield "RGB of 16 bits"
    if gray is None:
        return
    for bits in (1, 2, 4, 8):
        step = 255 // (2**bits - 1)
        if not (gray % step).any():
            png(path, gray // step, bits)
            yield f"gray of {bits} bits"
    png(path, np.stack([gray, opaque[..., 0]], axis=2), 8, 4)
    yield "gray and opaque"
    for factor in (1, 257):
        png(path, gray.astype(int) * factor, 16)
        yield f"gray of 16 bits, times {factor}"
        Image.fromarray(gray.astype(np.uint16) * factor).save(path, "TIFF")
        yield "TIFF of 16 bits"


TRAIN_ID_PICTURES = {
    "many": [0, 1, 2, 8, 10, 13, 18, 255],
    "one": [0],
    "road and ignored": [0, 255],
    "ids that look like bits": [0, 1],
    "multiples of 17": [0, 17, 255],
    "no road": [5, 11],
}


@pytest.mark.parametrize("ids", TRAIN_ID_PICTURES.values(), ids=TRAIN_ID_PICTURES)
def test_gray_train_ids_stay_what_they_are(tmp_path, ids):
    label = np.random.default_rng(1).choice(ids, (6, 11)).astype(np.uint8)
    label.flat[: len(ids)] = ids
    path = tmp_path / "label.png"
    reader = LabelReader("cityscapes", train_ids=True)
    kinds = []
    for kind in encodings(path, np.repeat(label[:, :, None], 3, axis=2)):
        if kind in ("gray of 1 bits", "gray of 2 bits", "gray of 4 bits") and len(ids) > 1:
            with pytest.raises(InputError, match="label.png: has fewer than 8 bits.*with 8 bits"):
                reader.read(str(path))
        else:
            assert (reader.read(str(path)) == label).all(), kind
        kinds.append(kind)
    assert len(kinds) > 15


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_that_can_mean_two_things_are_refused(tmp_path, bits):
    path = tmp_path / "label.png"
    png(path, np.arange(2**bits).reshape(1, -1), bits)
    reader = LabelReader("cityscapes", train_ids=True)
    with pytest.raises(InputError, match="label.png: "):
        reader.read(str(path))
    png(path, np.zeros((2, 2), int), bits)
    assert (reader.read(str(path)) == 0).all()


def official_palette():
    space = LABEL_SPACES["gta"]
    palette = [space.id_colors.get(i, (0, 0, 0)) for i in range(256)]
    for label_id, train_id in space.id_to_train_id.items():
        palette[label_id] = space.colors[train_id]
    return palette


RAW_PICTURES = {
    "street": [7, 8, 11, 21, 23, 33, 0, 4],
    "car": [7, 26, 33],
    "gray colors": [11, 17, 4],
    "void": [0, 4],
    "building": [11],
}


@pytest.mark.parametrize("ids", RAW_PICTURES.values(), ids=RAW_PICTURES)
@pytest.mark.parametrize("void", ["own colors", "black", "another color"])
def test_a_data_set_s_palette_is_read_by_its_ids_others_by_color_or_not_at_all(tmp_path, ids, void):
    space, palette = LABEL_SPACES["gta"], official_palette()
    if void != "own colors":
        for label_id in space.void_ids:
            palette[label_id] = (0, 0, 0) if void == "black" else (3, 99, label_id)
    label = np.random.default_rng(2).choice(ids, (6, 11)).astype(np.uint8)
    label.flat[: len(ids)] = ids
    expected = space.lookup_table()[label]
    path = tmp_path / "label.png"
    reader = LabelReader("gta", train_ids=False)
    png(path, label, 8, 3, palette)
    if set(ids) & space.id_to_train_id.keys() or void == "black":
        assert (reader.read(str(path)) == expected).all()
    read = refused = 0
    for kind in encodings(path, np.array(palette, np.uint8)[label]):
        if "gray" in kind or "TIFF of 16 bits" in kind:
            continue  # then the values are the IDs, whatever the colors were
        try:
            assert (reader.read(str(path)) == expected).all(), kind
            read += 1
        except InputError as error:
            assert str(path) in str(error)
            refused += 1
    assert read + refused > 8
    if 26 in ids:  # a car's color is a license plate's, too
        assert not read
    elif ids == RAW_PICTURES["street"] and void != "another color":
        assert read


@pytest.mark.parametrize("off", [1, 3, 5, 12])
def test_rounded_colors_are_the_data_set_s(off, tmp_path):
    """Of GTA V's palette, and of color masks, one color or all are a few values off."""
    palette = [np.array(color) for color in official_palette()]
    label = np.random.default_rng(2).choice(RAW_PICTURES["car"] + [0, 4], (6, 11)).astype(np.uint8)
    expected = LABEL_SPACES["gta"].lookup_table()[label]
    path, reader = tmp_path / "label.png", LabelReader("gta", train_ids=False)

    def rounded(chosen):
        return [np.clip(c + off * (-1) ** i, 0, 255) if i in chosen else c
                for i, c in enumerate(palette)]  # fmt: skip

    for chosen in ([7], range(256)):
        png(path, label, 8, 3, rounded(chosen))
        if off > 5:
            with pytest.raises(InputError, match="label.png: .*numbers_are_ids.*--numbers-are-ids"):
                reader.read(str(path))
        else:
            assert (reader.read(str(path)) == expected).all()
        told = LabelReader("gta", train_ids=False, numbers_are_ids=True)
        assert (told.read(str(path)) == expected).all()
    masks = np.array(CITYSCAPES_COLORS)[np.arange(19).reshape(1, 19)]
    masks[0, 4] += off
    png(path, masks, 8, 2)
    train_ids = LabelReader("cityscapes", train_ids=True)
    if off > 5:
        with pytest.raises(InputError, match="label.png: the color"):
            train_ids.read(str(path))
    else:
        assert (train_ids.read(str(path)) == np.arange(19)).all()


def test_a_color_near_two_of_the_data_set_is_neither(tmp_path):
    space = LabelSpace({0: 0, 1: 1}, frozenset(), ("a", "b"), ((100, 0, 0), (106, 0, 0)))
    path = tmp_path / "label.png"
    reader = LabelReader("cityscapes", train_ids=True)
    reader.space, reader.class_names = space, space.class_names
    for red, expected in ((100, 0), (106, 1), (98, 0), (108, 1), (103, None)):
        png(path, np.full((2, 2, 3), (red, 0, 0)), 8, 2)
        if expected is None:
            with pytest.raises(InputError, match="label.png: the color"):
                reader.read(str(path))
        else:
            assert (reader.read(str(path)) == expected).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_numbers_where_the_data_set_says_so(bits, tmp_path):
    label = np.arange(12).reshape(3, 4) % 2**bits
    png(tmp_path / "label.png", label, bits)
    reader = LabelReader("cityscapes", train_ids=True, numbers_are_ids=True)
    assert (reader.read(str(tmp_path / "label.png")) == label).all()


def test_gray_label_ids_are_no_palette_s_numbers(tmp_path):
    """Stored anew as a palette, the only value is number 0, which is void in raw labels."""
    reader = LabelReader("gta", train_ids=False)
    for label_id, train_id in [(7, 0), (21, 8), (26, 13)]:
        png(tmp_path / "label.png", np.zeros((2, 3), int), 1, 3, [(label_id,) * 3])
        assert (reader.read(str(tmp_path / "label.png")) == train_id).all()
    png(tmp_path / "label.png", np.zeros((2, 3), int), 1, 3, [(20, 20, 20)])  # void 4's color
    with pytest.raises(InputError, match="as gray values and as the data set's colors.*gray image"):
        reader.read(str(tmp_path / "label.png"))


def test_color_masks_are_read_by_the_data_set_s_colors(tmp_path):
    label = np.arange(19).reshape(1, 19)
    Image.fromarray(np.array(CITYSCAPES_COLORS, np.uint8)[label]).save(tmp_path / "colors.png")
    reader = LabelReader("cityscapes", train_ids=True)
    assert (reader.read(str(tmp_path / "colors.png")) == label).all()
    Image.new("RGB", (4, 4), (1, 200, 3)).save(tmp_path / "colors.png")
    with pytest.raises(InputError, match=r"colors.png: the color \(1, 200, 3\).*Get the original"):
        reader.read(str(tmp_path / "colors.png"))


def test_what_is_no_lossless_image_of_ids_is_refused(tmp_path):
    gray = Image.fromarray(np.random.default_rng(0).integers(19, size=(9, 9), dtype=np.uint8))
    path = tmp_path / "label.png"

    def refused(reason):
        with pytest.raises(InputError, match=f"label.png: .*{reason}"):
            read_label_image(str(path))

    for kind in ("JPEG", "WEBP"):
        gray.convert("RGB").save(path, kind)
        refused(f"its content is {kind}.*Get the labels as PNG")
    gray.save(path, "TIFF", compression="jpeg")
    refused("lossy TIFF")
    gray.save(path, "GIF", save_all=True, append_images=[Image.new("L", (9, 9))])
    refused("2 pictures")
    Image.new("RGBA", (2, 2), (1, 1, 1, 9)).save(path)
    refused("transparent")
    Image.new("F", (2, 2)).save(path, "TIFF")
    refused("mode F")
    Image.new("CMYK", (2, 2)).save(path, "TIFF")
    refused("mode CMYK")
    png(path, np.full((2, 2), 24001), 16)
    refused("24001, label IDs are from 0 to 255. Where higher .* label_mapping")
    colors = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    Image.fromarray(colors).save(path)
    refused("colors, so it is no label image")
    path.write_bytes(b"")
    refused("is empty")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    refused("git lfs pull")


def test_a_turned_label_is_turned(tmp_path):
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(label).save(tmp_path / "label.png", exif=exif)
    assert read_label_image(str(tmp_path / "label.png")).values.tolist() == [[3, 0], [4, 1], [5, 2]]


def test_labels_of_every_byte_are_the_label_or_one_error(tmp_path):
    """Bits of a small file changed one by one: never another label."""
    label = np.tile(np.arange(4, dtype=np.uint8), (3, 2))
    path = tmp_path / "label.png"
    png(path, label, 2, 3, [(i, i, i) for i in range(4)])
    content = path.read_bytes()
    reader = LabelReader("camvid", train_ids=False)
    for position, bit in itertools.product(range(len(content)), (0, 3, 7)):
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(InputError, match="label.png"):
            reader.read(str(path))


@pytest.mark.parametrize("bits", [8, 16])
def test_rows_that_are_missing_are_no_labels_of_0(bits, tmp_path):
    path = tmp_path / "label.png"
    png(path, np.full((24, 6), 1), bits)
    content = path.read_bytes()
    png(path, np.full((10, 6), 1), bits)
    short = path.read_bytes()
    path.write_bytes(content[:33] + short[33:])  # the header of 24 rows, the data of 10
    with pytest.raises(InputError, match="label.png: not a whole image"):
        read_label_image(str(path))


@pytest.mark.parametrize(
    "palette", [[(0, 0, 0)] * 6, [(255, 255, 255)] * 6, [(0, 0, 0), (1, 1, 1)]]
)
def test_a_palette_that_does_not_tell_the_numbers_apart_is_refused(palette, tmp_path):
    path = tmp_path / "label.png"
    png(path, np.arange(6).reshape(2, 3), 8, 3, palette)
    with pytest.raises(InputError, match="label.png: its palette does not tell the numbers 0, 1"):
        LabelReader("gta", train_ids=True).read(str(path))


def test_values_of_a_pnm_of_another_maximum_are_refused(tmp_path):
    path = tmp_path / "label.pgm"
    path.write_bytes(b"P5 # ids\n2 1\n1\n\0\1")
    with pytest.raises(InputError, match="label.pgm: its values end at 1"):
        read_label_image(str(path))
    path.write_bytes(b"P5 # ids\n2 1\n255\n\0\1")
    assert read_label_image(str(path)).values.tolist() == [[0, 1]]


SPACE = {"id_to_train_id": {0: 0, 1: 1}, "void_ids": frozenset(), "class_names": ("a", "b"),
         "colors": ((0, 0, 0), (0, 0, 1))}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id_to_train_id": {1: 1, 2: 2}}, "train IDs 0 to 1, not \\[2\\]"),
        ({"id_to_train_id": {0: 0, 70000: 1}}, "label IDs 0 to 65535, not \\[70000\\]"),
        ({"void_ids": frozenset([1])}, "void and have a train ID: \\[1\\]"),
        ({"class_names": ("a", "a")}, "names each class once"),
        (
            {"id_to_train_id": {0: 0}, "class_names": ("a",)},
            "one color for each of its 1 classes, not 2",
        ),
        ({"means": {"m": (5,)}}, "means over other train IDs than 0 to 1"),
        ({"colors": ((300, 0, 0), (0, 0, 1))}, "three whole numbers from 0 to 255"),
        ({"colors": ((1, 2), (0, 0, 1))}, "three whole numbers"),
        ({"class_names": ("", "road")}, "no text, or empty"),
    ],
)
def test_label_spaces_that_contradict_themselves(change, reason):
    LabelSpace(**SPACE)
    with pytest.raises(InputError, match=reason):
        LabelSpace(**SPACE | change)
