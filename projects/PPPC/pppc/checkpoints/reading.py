"""Reading checkpoints of any origin without running code that is in them."""

import io
import logging
import os
import pickle
import re
import zipfile

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ..errors import InputError
from .unpickling import Placeholder, load_pickle, load_torch, tensors_of

logger = logging.getLogger(__name__)

# Where files keep the network, the usual names first; of several networks in a file the first is taken.
_NETWORK = (
    "model", "state_dict", "model_state_dict", "model_state", "net", "network", "model_ema",
    "state_dict_ema", "ema", "ema_state_dict", "module", "params", "weights",
)  # fmt: skip
# What holds tensors that are no weights.
_NO_NETWORK = ("optim", "sched", "scaler", "message_hub", "trainer", "rng", "meta", "args")

_LEGACY = pickle.dumps(
    torch.serialization.MAGIC_NUMBER, protocol=2
)  # starts torch.save's old files


def read_weights(path: str, checked: bool = False) -> dict:
    """The content of a checkpoint: its state dictionary is under "model".

    What the file is, is seen by its content, not by its name. The state dictionary may lie deeper
    in the file; prefixes of ``DistributedDataParallel`` and ``torch.compile`` are removed. What is
    more than tensors, numbers, strings and plain containers is left out with a warning, and never run.

    Args:
        path: of a safetensors file, a Detectron2 .pkl file, or a file of ``torch.save``.
        checked: the file is known to be whole.

    Returns:
        what the file holds beside the weights, such as an optimizer's state, and "model": tensors
        by their names in the file.

    Raises:
        InputError: the file is damaged, or holds no tensors.
    """
    content = _load(path, checked)
    state = _network(content, path)
    if not state:
        raise InputError(f"{path} holds no state dictionary: it is no checkpoint of a network")
    rest = {key: value for key, value in content.items() if key not in state}
    tensors = {_unwrapped(key): _tensor(value) for key, value in state.items()}
    tensors.pop("n_averaged", None)  # a count of torch's AveragedModel
    return {**rest, "model": tensors}


def checkpoint_damage(path: str | os.PathLike) -> str | None:
    """What is wrong with a ZIP file of ``torch.save``, or None. PyTorch itself reads changed bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except Exception as error:  # of many types, where its tables make no sense
        return str(error) or type(error).__name__
    return None if changed is None else f"its part {changed} has changed"


def _no_checkpoint(path: str, reason: str, advice: str = "get it again") -> InputError:
    return InputError(f"{path} is no whole checkpoint ({reason}): {advice}")


def _load(path: str, checked: bool) -> object:
    with open(path, "rb") as file:
        start = file.read(200)
    if not start.strip(b"\0"):
        raise _no_checkpoint(path, "it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise _no_checkpoint(path, "a pointer of Git LFS", "run git lfs pull in its repository")
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")):
        raise _no_checkpoint(path, "a compressed file", "unpack it")
    if start[8:9] == b"{" and not start[7]:
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise _no_checkpoint(path, str(error)) from error
    if start.startswith(b"PK"):
        _check_archive(path, checked)
        return _load_pickled(path, is_torch=True)
    text = start.decode(errors="replace").lstrip("\ufeff \t\r\n")[:40]
    if text[:1] in tuple("<{[#") or text.isascii() and text.isprintable():
        raise _no_checkpoint(path, f"it holds text: {text!r}")
    return _load_pickled(path, is_torch=start.startswith(_LEGACY))


def _check_archive(path: str, checked: bool) -> None:
    if not checked and (reason := checkpoint_damage(path)):
        raise _no_checkpoint(path, reason)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{path} is a TorchScript program, whose weights only running it gives. If you trust its "
            f"source, save them: torch.save(torch.jit.load({str(path)!r}, 'cpu').state_dict(), "
            "'NEW.pth')"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise _no_checkpoint(path, f"an archive of {', '.join(names[:2])}", "unpack it")


def _load_pickled(path: str, is_torch: bool) -> object:
    """Files of ``torch.save`` and Detectron2's pickles."""
    try:
        # By the name alone, torch.load would take some files for safetensors.
        with open(path, "rb") as file:
            if not is_torch:
                content, left_out = load_pickle(io.BytesIO(file.read()))
            else:
                try:
                    return torch.load(file, map_location="cpu", weights_only=True)
                except pickle.UnpicklingError:  # damaged, or more than tensors
                    file.seek(0)
                    content, left_out = load_torch(file)
    except Exception as error:  # of any type: a damaged pickle asks for anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _no_checkpoint(path, reason) from error
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        logger.warning(
            "%s holds more than tensors (%s%s). That is left out, and no code of the file was run",
            path, ", ".join(sorted(left_out)[:3]), more,
        )  # fmt: skip
    return content


def _network(content: object, path: str) -> dict[str, Tensor | np.ndarray]:
    """The state dictionary in a file's content; several parts become one, named by their places."""
    if isinstance(content, Placeholder) and not content:
        return tensors_of(content)
    if not isinstance(content, dict):
        return {}
    names = [key for key in content if isinstance(key, str)]
    if any("weight" in name or name.endswith("_w") for name in names if _is_array(content[name])):
        return {name: content[name] for name in names if _is_array(content[name])}
    parts = {
        name: found
        for name in names
        if not name.startswith(_NO_NETWORK) and (found := _network(content[name], path))
    }
    if chosen := next((name for name in _NETWORK if name in parts), None):
        if len(parts) > 1:
            left = [f"{name} ({len(parts[name])} tensors)" for name in parts if name != chosen]
            logger.warning("%s: %s is taken, %s left out", path, chosen, " and ".join(left))
        return parts[chosen]
    if len(parts) == 1:
        return next(iter(parts.values()))
    return {f"{part}.{key}": value for part, keys in parts.items() for key, value in keys.items()}


def _is_array(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return isinstance(value, Tensor)


def _unwrapped(key: str) -> str:
    key = re.sub(r"(?<![^.])_orig_mod\.", "", key)
    return re.sub(r"\A(module\.)+", "", key)


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
