"""Data sets: label spaces, registration, mapping and sampling."""

import cv2

from . import catalog  # noqa: F401  (registers the data sets)
from .build import build_test_loader, build_train_loader
from .catalog import label_reader, register_split
from .checks import check_data
from .splits import Split

# Loaders fork their workers, and a fork of a process whose OpenCV has started threads can hang.
cv2.setNumThreads(0)

__all__ = [
    "Split",
    "build_test_loader",
    "build_train_loader",
    "check_data",
    "label_reader",
    "register_split",
]
