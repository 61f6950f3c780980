"""Label tables against the published ones."""

import numpy as np
import pytest
from pppc.data.train_ids import (
    LABEL_SPACES,
    SYNTHIA_13_TRAIN_IDS,
    SYNTHIA_16_TRAIN_IDS,
    LabelSpace,
)

# As published: the converters of DAFormer (SYNTHIA, GTA) and the label list of Cityscapes.
CITYSCAPES_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip
SYNTHIA_IDS = {
    "sky": 1, "building": 2, "road": 3, "sidewalk": 4, "fence": 5, "vegetation": 6, "pole": 7,
    "car": 8, "traffic sign": 9, "person": 10, "bicycle": 11, "motorcycle": 12,
    "traffic light": 15, "terrain": 16, "rider": 17, "truck": 18, "bus": 19, "train": 20,
    "wall": 21,
}  # fmt: skip
TRAIN_IDS = {name: train_id for train_id, name in enumerate(CITYSCAPES_IDS)}


@pytest.mark.parametrize(
    "name, ids, void",
    [
        ("gta", CITYSCAPES_IDS, {*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 34}),
        ("cityscapes", CITYSCAPES_IDS, {*range(7), 9, 10, 14, 15, 16, 18, 29, 30}),
        ("synthia", SYNTHIA_IDS, {0, 13, 14, 22}),
    ],
)
def test_ids_agree_with_the_published_tables(name, ids, void):
    space = LABEL_SPACES[name]
    expected = {label_id: TRAIN_IDS[class_name] for class_name, label_id in ids.items()}
    assert dict(space.id_to_train_id) == expected
    assert space.void_ids == void
    table = space.lookup_table()
    assert table.dtype == np.uint8 and table.shape == (256,)
    assert [table[i] for i in range(256)] == [expected.get(i, 255) for i in range(256)]


def test_known_ids_are_classes_and_void():
    assert np.flatnonzero(LABEL_SPACES["camvid"].known_ids()).tolist() == list(range(12))
    assert not LABEL_SPACES["cityscapes"].known_ids()[34:].any()


def test_the_text_of_equal_label_spaces_is_the_same_however_they_were_written():
    """Converted labels are known by it. 8 and 200 collide in a small set, whose order then differs."""
    names, colors = ("road", "car"), ((9, 0, 0), (0, 9, 0))
    one = LabelSpace({1: 0, 2: 1}, frozenset([8, 200]), names, colors)
    other = LabelSpace({2: 1, 1: 0}, frozenset([200, 8]), names, colors)
    assert one == other and list(one.void_ids) != list(other.void_ids)
    assert repr(one) == repr(other)


def test_every_class_has_a_name_and_a_color_of_its_own():
    for space in LABEL_SPACES.values():
        train_ids = sorted(space.id_to_train_id.values())
        assert train_ids == list(range(len(space.class_names)))
        assert len(set(space.class_names)) == len(set(space.colors)) == len(space.class_names)


def test_synthia_lists_leave_out_the_published_classes():
    names = LABEL_SPACES["synthia"].class_names
    absent = set(names) - {names[i] for i in SYNTHIA_16_TRAIN_IDS}
    assert absent == {"terrain", "truck", "train"}
    assert {names[i] for i in SYNTHIA_16_TRAIN_IDS} - {names[i] for i in SYNTHIA_13_TRAIN_IDS} == {
        "wall", "fence", "pole",
    }  # fmt: skip
