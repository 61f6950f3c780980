"""Weights of any origin: reading their files safely, and giving their tensors our names."""

from .layouts import LAYOUTS
from .reading import read_weights
from .translation import Translation, from_other_layout

__all__ = ["LAYOUTS", "Translation", "from_other_layout", "read_weights"]
