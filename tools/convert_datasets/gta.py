#!/usr/bin/env python3
"""Convert GTA V's labels (ROOT/labels/*.png) to Cityscapes train ids and count classes."""

from functools import partial

from pppc.data.conversion import list_label_images, main
from pppc.data.labels import LabelReader
from pppc.data.splits import SPLITS
from pppc.errors import run_tool

if __name__ == "__main__":
    list_labels = partial(
        list_label_images,
        label_folder="labels",
        image_folder="images",
        unusable=SPLITS["gta_train"].unusable,
    )
    reader = LabelReader("gta", train_ids=False)
    by_number = LabelReader("gta", train_ids=False, numbers_are_ids=True)
    run_tool(partial(main, __doc__, list_labels, reader.read, reader.space, by_number.read))
