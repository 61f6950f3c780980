#!/usr/bin/env python3
"""Convert SYNTHIA's labels (ROOT/GT/LABELS/*.png) to Cityscapes train ids and count classes."""

from functools import partial

from pppc.data.conversion import list_label_images, main, read_synthia_image
from pppc.data.train_ids import LABEL_SPACES
from pppc.errors import run_tool

if __name__ == "__main__":
    list_labels = partial(list_label_images, label_folder="GT/LABELS", image_folder="RGB")
    space = LABEL_SPACES["synthia"]
    read = partial(read_synthia_image, space=space)
    run_tool(partial(main, __doc__, list_labels, read, space))
