"""Weights of other projects: reading their files safely, and giving their tensors our names."""

from .layouts import LAYOUTS, Translation, from_other_layout, to_other_layout
from .reading import read_weights

__all__ = ["LAYOUTS", "Translation", "from_other_layout", "read_weights", "to_other_layout"]
