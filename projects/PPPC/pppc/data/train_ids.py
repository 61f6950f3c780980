"""Label spaces: the ids that a data set stores, and the train ids that the network predicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from ..errors import InputError

IGNORE_LABEL = 255

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
CITYSCAPES_COLORS = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

# SYNTHIA has no terrain, truck or train. Its mean IoU is reported over the 16 classes that it has,
# and over 13, which leave out wall, fence and pole as well.
SYNTHIA_16_TRAIN_IDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
SYNTHIA_13_TRAIN_IDS = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)

CAMVID_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
    "pedestrian", "bicyclist",
)  # fmt: skip
CAMVID_COLORS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


@dataclass(frozen=True)
class LabelSpace:
    """The ids in a data set's label files and their meaning.

    Attributes:
        id_to_train_id: train id of every id that is evaluated.
        void_ids: the data set's other ids. They become `ignore_label`; an id in neither is none
            of the data set's, so the file that holds it is not one of its label files.
        class_names: names by train id.
        colors: RGB colors, 0 to 255, by train id; empty: they are not known.
        ignore_label: the train id of pixels that count nowhere.
        means: train ids of the mean IoUs that are reported, beside that of all classes, of networks
            trained on this data set, by their names.
        id_colors: RGB colors of ids in the data set's own palette, by id; otherwise a class's color, and
            black for what is void, where no class is black.
        void_colors: whether colors of no class are void, too; otherwise they are an error.

    Raises:
        InputError: the parts contradict each other.

    Examples:
        >>> space = LabelSpace({1: 0, 2: 1}, frozenset({0}), ("road", "car"), ((9, 0, 0), (0, 9, 0)))
        >>> space.lookup_table()[:4].tolist()
        [255, 0, 1, 255]
        >>> LabelSpace({1: 1, 2: 2}, frozenset(), ("road", "car"), ((9, 0, 0), (0, 9, 0)))
        Traceback (most recent call last):
            ...
        pppc.errors.InputError: a label space of 2 classes has train IDs 0 to 1, not [2]
    """

    id_to_train_id: Mapping[int, int]
    void_ids: frozenset[int]
    class_names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_label: int = IGNORE_LABEL
    means: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    id_colors: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    void_colors: bool = False

    def __post_init__(self) -> None:
        number = len(self.class_names)
        wrong_train_ids = sorted(set(self.id_to_train_id.values()) - set(range(number)))
        wrong_ids = sorted({*self.id_to_train_id, *self.void_ids} - set(range(2**16)))
        both = sorted(self.void_ids & self.id_to_train_id.keys())
        wrong_colors = [
            color
            for color in (*self.colors, *self.id_colors.values())
            if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color)
        ]
        wrong_means = [
            name for name, ids in self.means.items() if not set(ids) <= set(range(number))
        ]
        for problem, wrong in (
            (f"of {number} classes has train IDs 0 to {number - 1}, not {wrong_train_ids}",
             wrong_train_ids),
            (f"has label IDs 0 to 65535, not {wrong_ids}", wrong_ids),
            (f"has label IDs that are void and have a train ID: {both}", both),
            (f"has one color for each of its {number} classes, not {len(self.colors)}",
             len(self.colors) not in (0, number)),
            ("names each class once", len(set(self.class_names)) != number),
            ("has names of classes that are no text, or empty",
             not all(isinstance(name, str) and name for name in self.class_names)),
            ("has colors that are not three whole numbers from 0 to 255: "
             f"{wrong_colors}", wrong_colors),
            (f"has means over other train IDs than 0 to {number - 1}: {wrong_means}", wrong_means),
            (f"of {number} classes has an ignore label from {number} to 255, not "
             f"{self.ignore_label}", not number <= self.ignore_label <= 255),
        ):  # fmt: skip
            if wrong:
                raise InputError(f"a label space {problem}")

    def __repr__(self) -> str:
        """The same for equal label spaces in every process: converted labels are known by it."""

        def in_order(value: object) -> object:
            if isinstance(value, Mapping):
                return sorted(value.items())
            return sorted(value) if isinstance(value, frozenset) else value

        parts = (
            f"{name}={in_order(value)!r}"
            for name, value in vars(self).items()
            if value is not False
        )
        return f"LabelSpace({', '.join(parts)})"

    @property
    def num_ids(self) -> int:
        """256, or 65536 where an id does not fit into 8 bits."""
        return 256 if max((*self.id_to_train_id, *self.void_ids), default=0) < 256 else 2**16

    def lookup_table(self) -> np.ndarray:
        """Train id by id: uint8, shape (num_ids,); `ignore_label` for every id without a train id."""
        table = np.full(self.num_ids, self.ignore_label, dtype=np.uint8)
        for label_id, train_id in self.id_to_train_id.items():
            table[label_id] = train_id
        return table

    def known_ids(self) -> np.ndarray:
        """Whether an id is one of the data set's: bool, shape (num_ids,)."""
        known = np.zeros(self.num_ids, dtype=bool)
        known[list(self.id_to_train_id)] = True
        known[list(self.void_ids)] = True
        return known


_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_SYNTHIA_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)


# Of Cityscapes' own palette, which GTA V's follows; 34 is GTA V's license plate.
_CITYSCAPES_VOID_COLORS = {
    4: (20, 20, 20), 5: (111, 74, 0), 6: (81, 0, 81), 9: (250, 170, 160), 10: (230, 150, 140),
    14: (180, 165, 180), 15: (150, 100, 100), 16: (150, 120, 90), 18: (153, 153, 153),
    29: (0, 0, 90), 30: (0, 0, 110), 34: (0, 0, 142),
}  # fmt: skip


def _cityscapes_classes(
    ids: tuple[int, ...], num_ids: int, void_colors: Mapping = MappingProxyType({}), **means: tuple
) -> LabelSpace:
    """The label space that stores Cityscapes class k as `ids[k]`; ids end before `num_ids`."""
    return LabelSpace(
        id_to_train_id={label_id: train_id for train_id, label_id in enumerate(ids)},
        void_ids=frozenset(range(num_ids)) - frozenset(ids),
        class_names=CITYSCAPES_CLASSES,
        colors=CITYSCAPES_COLORS,
        means=means,
        id_colors={i: color for i, color in void_colors.items() if i < num_ids},
    )


class _LabelSpaces(dict[str, LabelSpace]):
    """Spaces by their names; a name that is taken keeps its meaning."""

    def __setitem__(self, name: str, space: LabelSpace) -> None:
        if name in self and self[name] != space:
            raise InputError(f"another label space is named {name!r} already: choose another name")
        super().__setitem__(name, space)


#: What the values of label images mean, by the name that a :class:`pppc.data.splits.Split` gives.
LABEL_SPACES: dict[str, LabelSpace] = _LabelSpaces(
    {
        "gta": _cityscapes_classes(
            _CITYSCAPES_IDS, 35, _CITYSCAPES_VOID_COLORS
        ),  # 34 is a license plate
        "synthia": _cityscapes_classes(
            _SYNTHIA_IDS,
            num_ids=23,  # 22 is a lane marking
            mIoU16=SYNTHIA_16_TRAIN_IDS,
            mIoU13=SYNTHIA_13_TRAIN_IDS,
        ),
        "cityscapes": _cityscapes_classes(_CITYSCAPES_IDS, 34, _CITYSCAPES_VOID_COLORS),
        "camvid": LabelSpace(
            id_to_train_id={label_id: label_id for label_id in range(len(CAMVID_CLASSES))},
            void_ids=frozenset({11}),
            class_names=CAMVID_CLASSES,
            colors=CAMVID_COLORS,
        ),
    }
)
