"""Label files as train IDs."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import cv2
import numpy as np

from ..errors import InputError
from .label_images import LabelImage, read_label_image
from .train_ids import LABEL_SPACES, LabelSpace

TOLERANCE = 5  # of a channel: programs that store colors anew round them
BY_NUMBERS = (
    "If the numbers in the file are the IDs whatever its palette, say so: numbers_are_ids of the data "
    "set's Split, --numbers-are-ids of a converter"
)
MOST_NAMED = 50  # values, in messages
UNKNOWN = -1  # in tables: a value or color that the data set has not


class LabelReader:
    """Reads the label files of one data set, as train IDs of these or of other classes.

    What a file's values or colors mean is at :meth:`read`.

    Args:
        label_space: what the files' values mean, or a key of :data:`pppc.data.train_ids.LABEL_SPACES`.
        train_ids: the files hold train IDs already, not the data set's own IDs.
        class_names: of the train IDs to return; None: the label space's. Classes are matched by
            name, and those of the label space that are not among them are ignored.
        ignore_label: to return for ignored pixels; None: the label space's.
        numbers_are_ids: the numbers stored are the IDs, whatever a palette or few bits show.

    Raises:
        InputError: the label space is unknown, or the ignore label is a class's.
    """

    def __init__(
        self,
        label_space: str | LabelSpace,
        train_ids: bool,
        class_names: Sequence[str] | None = None,
        ignore_label: int | None = None,
        numbers_are_ids: bool = False,
    ):
        if isinstance(label_space, str):
            if label_space not in LABEL_SPACES:
                raise InputError(
                    f"no label space is named {label_space!r}: use one of {', '.join(LABEL_SPACES)}, "
                    "or add yours to pppc.data.train_ids.LABEL_SPACES"
                )
            label_space = LABEL_SPACES[label_space]
        self.space: LabelSpace = label_space
        self.train_ids = train_ids
        self.numbers_are_ids = numbers_are_ids
        self.class_names = tuple(class_names or self.space.class_names)
        self.ignore_label = self.space.ignore_label if ignore_label is None else ignore_label
        if not self.num_classes <= self.ignore_label <= 255:
            raise InputError(
                f"the ignore label {self.ignore_label} must be from {self.num_classes}, the number "
                "of classes, to 255: set MODEL.SEM_SEG_HEAD.IGNORE_VALUE"
            )

    def with_classes(
        self, class_names: Sequence[str], ignore_label: int | None = None
    ) -> "LabelReader":
        """A reader of the same files whose train IDs are those of ``class_names``."""
        return LabelReader(
            self.space, self.train_ids, class_names, ignore_label, self.numbers_are_ids
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def rules(self) -> str:
        """All that decides what :meth:`read` makes of a file's content."""
        return f"{type(self)} {self.space} {self.train_ids} {self.numbers_are_ids} " + (
            f"{self.class_names} {self.ignore_label}"
        )

    @property
    def means(self) -> dict[str, list[str]]:
        """Class names of the label space's further means, those left that are returned."""
        names = self.space.class_names
        return {
            mean: [names[train_id] for train_id in ids if names[train_id] in self.class_names]
            for mean, ids in self.space.means.items()
        }

    @cached_property
    def _returned(self) -> list[int]:
        """What to return by the label space's own train ID."""
        return [
            self.class_names.index(name) if name in self.class_names else self.ignore_label
            for name in self.space.class_names
        ]

    @cached_property
    def _class_of(self) -> dict[int, int]:
        """The label space's train ID by the value in a file; void values are left out."""
        if self.train_ids:
            return {train_id: train_id for train_id in range(len(self.space.class_names))}
        return dict(self.space.id_to_train_id)

    @cached_property
    def _void(self) -> frozenset[int]:
        """The values in a file that are ignored."""
        return frozenset({self.space.ignore_label}) if self.train_ids else self.space.void_ids

    @cached_property
    def _by_value(self) -> np.ndarray:
        """What to return by the value in a file, ``(256,)``, or of 16 bits ``(65536,)``, int16."""
        table = np.full(self.space.num_ids, UNKNOWN, np.int16)
        table[list(self._void)] = self.ignore_label
        for value, train_id in self._class_of.items():
            table[value] = self._returned[train_id]
        return table

    @cached_property
    def _is_known(self) -> np.ndarray:
        """1 by each value of 8 bits that may be in a file, 0 by others; ``(256,)`` uint8."""
        return (self._by_value[:256] != UNKNOWN).astype(np.uint8)

    @cached_property
    def _color_of(self) -> dict[int, tuple[int, int, int]]:
        """The color that the data set gives a value; of what is void, black where it names none."""
        classes = self.space.colors
        colors = {value: classes[i] for value, i in self._class_of.items() if classes}
        if not self.train_ids:
            known = {*self._class_of, *self._void}
            colors |= {i: color for i, color in self.space.id_colors.items() if i in known}
        if (0, 0, 0) not in {colors.get(value) for value in self._class_of}:
            colors = dict.fromkeys(self._void, (0, 0, 0)) | colors
        return colors

    @cached_property
    def _by_color(self) -> dict[tuple[int, int, int], int]:
        """What to return by color; colors of several classes, or of class and void, left out."""
        meanings: dict[tuple, set[int]] = {}
        for value, color in self._color_of.items():
            meanings.setdefault(color, set()).add(int(self._by_value[value]))
        return {color: ids.pop() for color, ids in meanings.items() if len(ids) == 1}

    def label_of(self, record: Mapping) -> np.ndarray:
        """The train IDs of a record, ``(H, W)`` uint8: "sem_seg" where a mapper has read them already."""
        if "sem_seg" in record:
            return record["sem_seg"].numpy()
        return self.read(record["sem_seg_file_name"])

    def read(self, path: str) -> np.ndarray:
        """The train IDs in a file, ``(H, W)`` uint8.

        Gray values are IDs. Of colors, the numbers in a palette are IDs where the palette is the
        data set's own; otherwise gray colors mean their gray values, and the data set's colors
        its classes. A color may be up to 5 values a channel off where it is then that of one class.

        Raises:
            InputError: the file is no label image (see :mod:`pppc.data.label_images`), or holds a
                value or color that is not in the label space; the message names the file.
        """
        image = read_label_image(path, wide=self.space.num_ids > 256)
        if self.numbers_are_ids and (image.colors is None or image.has_palette):
            image = LabelImage(image.values // image.step)
        if image.colors is None and image.step == 1 and image.values.dtype == np.uint8:
            # Whether all values are known is told faster than which there are.
            if cv2.countNonZero(cv2.LUT(image.values, self._is_known)) == image.values.size:
                return cv2.LUT(image.values, self._by_value[:256].astype(np.uint8))
        used = values_in(image.values)
        table = self._by_value
        if image.colors is not None:
            table = self._table_of_colors(path, image, image.colors, used)
        stored = self._by_value[used // image.step]
        if image.step > 1 and (stored != UNKNOWN).all() and (stored != table[used]).any():
            raise InputError(
                f"{path}: has fewer than 8 bits a pixel: its labels can be the values shown, "
                f"{', '.join(map(str, used))}, or the numbers stored, "
                f"{', '.join(map(str, used // image.step))}. Store it with 8 bits. {BY_NUMBERS}"
            )
        if (unknown := used[table[used] == UNKNOWN]).size:
            kind = "train IDs" if self.train_ids else "label IDs"
            values = sorted({*self._class_of, *self._void})
            raise InputError(
                f"{path}: value {some_values(unknown)} is none of the data set's {kind} "
                f"({some_values(values)}). Correct this file, convert the data set again, or say "
                "what the value means (names or label_mapping of a data file, void_ids of a label space)"
            )
        if image.values.dtype == np.uint16:
            return table.astype(np.uint8)[image.values]
        return cv2.LUT(image.values, table[:256].astype(np.uint8))

    def _table_of_colors(
        self, path: str, image: LabelImage, palette: np.ndarray, used: np.ndarray
    ) -> np.ndarray:
        """What to return by the number of a color, ``(256,)`` int16; known for all that are used."""
        colors = [tuple(color) for color in palette.tolist()]
        by_gray = np.full(256, UNKNOWN, np.int16)
        for number in used:
            red, green, blue = colors[number]
            if red == green == blue:
                by_gray[number] = self._by_value[red]
        # Black is a value of many labels and the color of what is void: gray values come first.
        is_black = all(colors[number] == (0, 0, 0) for number in used)
        readings: dict[str, np.ndarray] = {}
        # Exact colors come first.
        for exact in (True, False):
            named = {n: colors[n] if exact else self._near_color(colors[n]) for n in used}
            if image.has_palette and self._is_own_palette(named, used):
                readings["the data set's own numbers"] = self._by_value
            if (by_gray[used] != UNKNOWN).all():
                readings["gray values"] = by_gray
            by_color = np.full(256, UNKNOWN, np.int16)
            for number in used:
                by_color[number] = self._by_color.get(named[number], UNKNOWN)
            if (by_color[used] != UNKNOWN).all() and not (readings and is_black):
                readings["the data set's colors"] = by_color
            if readings:
                break
        told_apart = {colors[number] for number in used if number < image.num_colors}
        own = "the data set's own numbers" in readings
        if image.has_palette and not own and len(told_apart) < len(used):
            raise InputError(
                f"{path}: its palette does not tell the numbers {', '.join(map(str, used))} apart, and is "
                f"not the data set's own. Store the IDs as a gray image. {BY_NUMBERS}"
            )
        tables = list(readings.values())
        if any((table[used] != tables[0][used]).any() for table in tables[1:]):
            raise InputError(
                f"{path}: its colors can be read as {' and as '.join(readings)}, and the labels would "
                f"differ. Store the IDs as a gray image{f'. {BY_NUMBERS}' if image.has_palette else ''}"
            )
        if not tables and self.space.void_colors:
            return np.where(by_color == UNKNOWN, self.ignore_label, by_color)
        if not tables:
            strange = [colors[number] for number in used if by_color[number] == UNKNOWN]
            raise InputError(
                f"{path}: the color {strange[0]} (and {len(strange) - 1} more) is that of no single "
                "class of the data set"
                + (", and its palette is not the data set's own" if image.has_palette else "")
                + ": the file may have been stored anew by another program. Get the original, or store "
                f"the IDs as gray values{f'. {BY_NUMBERS}' if image.has_palette else ''}"
            )
        return tables[0]

    @cached_property
    def _colors(self) -> np.ndarray:
        """All colors of the data set, ``(colors, 3)``."""
        return np.array(sorted(set(self._color_of.values())), int).reshape(-1, 3)

    def _near_color(self, color: tuple[int, int, int]) -> tuple[int, int, int]:
        """The one color of the data set that a color is within the tolerance, or itself."""
        near = self._colors[(abs(self._colors - color) <= TOLERANCE).all(1)]
        return tuple(near[0].tolist()) if len(near) == 1 else color

    def _is_own_palette(self, colors: dict[int, tuple], used: np.ndarray) -> bool:
        """Whether the numbers in use have the colors that the data set gives these IDs."""
        classes = {self._color_of.get(value) for value in self._class_of}
        evidence = True  # one class's color, or nothing but void with its own colors
        found = False
        for number in used:
            color = colors[number]
            if int(number) in self._class_of:
                if color != self._color_of.get(int(number)):
                    return False
                found = True
            elif number not in self._void:
                return False
            elif color not in ((0, 0, 0), self._color_of.get(int(number))):
                if color in classes:
                    return False
                evidence = False
        return found or evidence


def values_in(label: np.ndarray) -> np.ndarray:
    """The values that occur in an image ``(H, W)`` of 8 or 16 bits, in order."""
    is_wide = label.dtype == np.uint16
    return np.flatnonzero(np.bincount(label.ravel()) if is_wide else pixel_histogram(label))


def some_values(values: Sequence[int]) -> str:
    """The first values of many, for a message."""
    return ", ".join(map(str, values[:MOST_NAMED])) + ", ..." * (len(values) > MOST_NAMED)


def pixel_histogram(label: np.ndarray) -> np.ndarray:
    """Pixels of each value of a uint8 image ``(H, W)``: ``(256,)`` int64."""
    if label.size >= 2**24:  # more than OpenCV's float32 counts hold exactly
        return np.bincount(label.ravel(), minlength=256)
    # In labels most pixels equal the one before, and adding to one counter again and again is slow:
    # counting pairs from the two halves takes half as long as counting pixels.
    pixels = label.ravel()
    halves = pixels[: pixels.size // 2 * 2].reshape(2, 1, -1)
    pairs = cv2.calcHist(list(halves), [0, 1], None, [256, 256], [0, 256, 0, 256])
    counts = (pairs.sum(axis=0) + pairs.sum(axis=1)).astype(np.int64)
    if pixels.size % 2:
        counts[pixels[-1]] += 1
    return counts
