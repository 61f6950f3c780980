"""Reading checkpoints of any origin without running code that is in them."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

__all__ = ["read_weights"]

# What Detectron2's .pkl files hold: arrays, by the two names of NumPy's modules, and containers. Arrays of
# the older protocols are written as strings to be encoded.
_ARRAYS = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"))
} | {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode"),
}  # fmt: skip


# In the messages about what is no pickle at all, or not a whole one.
_DAMAGE = ("Unsupported operand", "truncated", "invalid load key", "stack underflow")


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_weights(path: str, trust: bool = False) -> dict:
    """The content of a checkpoint: its state dictionary is under "model".

    Args:
        path: of a .safetensors file, a Detectron2 .pkl file, or a file of ``torch.save``.
        trust: run the code that the file may hold. Otherwise tensors, numbers, strings and plain
            containers are all that is admitted.

    Returns:
        what the file holds beside the weights, such as an optimiser's state, and "model": tensors
        by their names in the file.

    Raises:
        ValueError: the file is damaged, holds more than tensors, or no tensors.
    """
    try:
        content = _load(path, trust)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        if trust or any(sign in str(error) for sign in _DAMAGE):
            raise ValueError(f"{path} is no whole checkpoint ({reason}): get it again") from error
        raise ValueError(
            f"{path} holds more than tensors, which could run code ({reason}). If you trust its "
            "source, convert it once: tools/convert_weights.py --trust IN OUT"
        ) from error
    except (EOFError, RuntimeError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is no whole checkpoint ({error}): get it again") from error
    for name in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            state = content.pop(name)
            break
    else:
        state, content = content, {}
    tensors = (
        {key: _tensor(value) for key, value in state.items()} if isinstance(state, dict) else {}
    )
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"{path} holds no state dictionary: it is no checkpoint of a network")
    return {**content, "model": tensors}


def _load(path: str, trust: bool) -> object:
    if path.endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    if path.endswith(".pkl"):
        with open(path, "rb") as file:
            content = io.BytesIO(file.read())
        unpickler = pickle.Unpickler if trust else _ArraysOnly
        return unpickler(content, encoding="latin1").load()
    return torch.load(path, map_location="cpu", weights_only=not trust)


def _tensor(value: object) -> object:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
