"""The configuration: its keys and defaults, its files, and what its values must be."""

from .defaults import add_pppc_config
from .files import get_config_file, load_config

__all__ = ["add_pppc_config", "get_config_file", "load_config"]
