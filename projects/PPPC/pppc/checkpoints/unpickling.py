"""Unpickling without running anything: what is no tensor or plain container becomes a placeholder.

Checkpoints of other programs hold objects of theirs (loggers, options, paths, whole networks) beside
the tensors. The classes need not be installed, and no code of the file is run.
"""

import io
import pickle
from types import ModuleType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

# What NumPy arrays are made of, by the two names of NumPy's modules; arrays of the older protocols
# are written as strings to be encoded.
_ARRAYS = {
    (f"numpy.{core}.multiarray", name)
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
} | {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode"),
}  # fmt: skip

_TENSORS = {
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): torch._utils._rebuild_parameter_with_state,
    ("torch.nn.parameter", "Parameter"): nn.Parameter,
    ("torch", "Size"): torch.Size,
    ("collections", "defaultdict"): lambda *_: {},
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,  # as Python 2 and older protocols call it
    # Tensors that were pickled without torch.save.
    ("torch.storage", "_load_from_bytes"): lambda content: torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    ),
}


class Placeholder(dict):
    """In place of an object whose class is not loaded.

    A dictionary, since some of those classes are; ``state`` is what the file says of its attributes.
    """

    state: object = None

    def __init__(self, *arguments: object, **options: object):
        super().__init__()

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *arguments: object, **options: object) -> "Placeholder":
        return Placeholder()

    def append(self, item: object) -> None:
        """Of classes that are lists or sets: items are left out."""

    add = append

    def extend(self, items: object) -> None:
        """As :meth:`append`."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def _unpickler(unknown: set[str]) -> type[pickle.Unpickler]:
    """An unpickler that adds to ``unknown`` what it leaves out."""

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            if (module, name) in _TENSORS:
                return _TENSORS[module, name]
            if (module, name) in _ARRAYS:
                return super().find_class(module, name)
            if module == "torch" and isinstance(known := getattr(torch, name, None), torch.dtype):
                return known
            unknown.add(f"{module}.{name}")
            return type(name, (Placeholder,), {})

    return Restricted


def load_torch(file: BinaryIO) -> tuple[object, set[str]]:
    """The content of a file of ``torch.save``, and the names of the classes left out."""
    unknown: set[str] = set()
    unpickler = _unpickler(unknown)
    module = ModuleType("restricted")  # what torch.load takes in place of Python's pickle
    module.Unpickler = unpickler
    module.load = lambda file, **options: unpickler(file, **options).load()
    content = torch.load(file, map_location="cpu", weights_only=False, pickle_module=module)
    return content, unknown


def load_pickle(file: BinaryIO) -> tuple[object, set[str]]:
    """The content of a pickle, and the names of the classes left out."""
    unknown: set[str] = set()
    return _unpickler(unknown)(file, encoding="latin1").load(), unknown


def tensors_of(module: Placeholder, prefix: str = "") -> dict[str, Tensor | np.ndarray]:
    """The tensors of a network that was pickled whole, by the names of its state dictionary.

    Empty where the object is no network.
    """
    state = module.state if isinstance(module.state, dict) else {}
    tensors = {}
    left_out = state.get("_non_persistent_buffers_set", ())
    for part in ("_parameters", "_buffers"):
        for name, value in state.get(part, {}).items():
            if isinstance(value, Tensor) and name not in left_out:
                tensors[prefix + name] = value.detach()
    for name, child in state.get("_modules", {}).items():
        if isinstance(child, Placeholder):
            tensors |= tensors_of(child, f"{prefix}{name}.")
    return tensors
