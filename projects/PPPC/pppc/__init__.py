"""Probabilistic Prototypical Pixel Contrast (arXiv 2409.18543) as a Detectron2 project.

Importing this package registers its data sets, backbone, decoders and meta-architecture, and
imports the user's modules that the environment variable PPPC_IMPORT names.
"""

import warnings

from .requirements import import_detectron2, import_opencv

with warnings.catch_warnings():
    # Detectron2 and fvcore call it when they are imported; a user can't change that.
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
    import_opencv()  # before any import that needs the two
    import_detectron2()
    from . import data, modeling  # noqa: F401  (imported to register)
    from .config import add_pppc_config, get_config_file, load_config
    from .own_code import import_named
    from .prediction import load

import_named()

__all__ = ["add_pppc_config", "get_config_file", "load", "load_config"]
