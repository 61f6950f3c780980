"""The configuration: its keys and defaults, its files, and what its values must be."""

from .defaults import add_pppc_config
from .files import load_config

__all__ = ["add_pppc_config", "load_config"]
