"""Data sets: label spaces, registration, mapping and sampling."""

from . import catalog  # noqa: F401  (registers the data sets)
from .build import build_test_loader, build_train_loader
from .catalog import label_reader, register_split
from .checks import check_data
from .class_counts import class_frequencies
from .images import read_image
from .splits import Split

__all__ = [
    "Split",
    "build_test_loader",
    "build_train_loader",
    "check_data",
    "class_frequencies",
    "label_reader",
    "read_image",
    "register_split",
]
