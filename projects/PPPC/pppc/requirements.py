"""What pip cannot be told to install, looked for at import."""

import importlib
import inspect
from types import ModuleType

INSTALL_DETECTRON2 = (
    "Install Detectron2: pip install --no-build-isolation "
    "'git+https://github.com/facebookresearch/detectron2.git'; "
    "or, where only the package index can be reached, run `make setup` in the repository."
)
INSTALL_OPENCV = (
    "Install OpenCV: pip install opencv-python-headless "
    "(or opencv-python, where there is a display)."
)


def import_opencv() -> ModuleType:
    """OpenCV. To be called before Detectron2 is imported, which would pass on a broken one's error.

    Raises:
        ImportError: it is missing or broken; the message says what to do.
    """
    return _import("cv2", INSTALL_OPENCV)


def import_detectron2() -> ModuleType:
    """A Detectron2 with the options that this project uses.

    Raises:
        ImportError: it is missing, broken or too old; the message says what to do.
    """
    detectron2 = _import("detectron2", INSTALL_DETECTRON2)
    solver = _import("detectron2.solver.build", INSTALL_DETECTRON2)
    options = inspect.signature(solver.get_default_optimizer_params).parameters
    if "lr_factor_func" not in options:
        raise ImportError(f"this Detectron2 is too old for PPPC. {INSTALL_DETECTRON2}")
    return detectron2


def _import(module: str, advice: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # compiled parts of another version raise errors of any type
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        problem = f"PPPC needs {module}" if missing else f"{module} cannot be imported ({error})"
        raise ImportError(f"{problem}. {advice}") from error
