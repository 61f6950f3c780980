"""What pip cannot be told to install, checked at import."""

from __future__ import annotations

import importlib
import inspect

__all__ = ["check_requirements"]

MENDS = {
    "detectron2": "Install it: pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2.git'; or, where only the package index "
    "can be reached, run `make setup` in the repository.",
    "cv2": "Install OpenCV: pip install opencv-python-headless (or opencv-python, where there is "
    "a display).",
}


def check_requirements() -> None:
    """Find Detectron2 and OpenCV.

    Raises:
        ImportError: one is missing, broken or too old; the message says what to do.
    """
    for name, mend in MENDS.items():
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            problem = f"PPPC needs {name}" if missing else f"{name} cannot be imported ({error})"
            raise ImportError(f"{problem}. {mend}") from error

    from detectron2.solver.build import get_default_optimizer_params

    if "lr_factor_func" not in inspect.signature(get_default_optimizer_params).parameters:
        raise ImportError(f"this Detectron2 is too old for PPPC. {MENDS['detectron2']}")
