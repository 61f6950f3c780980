#!/usr/bin/env python3
"""Convert GTA V's labels (ROOT/labels/*.png) to Cityscapes train ids and count classes."""

import sys
from functools import partial

from pppc.data.conversion import list_label_images, main, read_index_image
from pppc.data.splits import SPLITS
from pppc.data.train_ids import LABEL_SPACES

if __name__ == "__main__":
    list_labels = partial(
        list_label_images,
        label_folder="labels",
        image_folder="images",
        unusable=SPLITS["gta_train"].unusable,
    )
    sys.exit(main(__doc__, list_labels, read_index_image, LABEL_SPACES["gta"]))
