"""timm's and torchvision's encoders: their names, as in the file, for the encoder at hand."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import timm
from torch import Tensor, nn

__all__ = ["UNUSED", "EncoderTensors", "find_encoder"]

# BatchNorm counts batches only where it has no momentum; old files lack the count.
UNUSED = ".num_batches_tracked"

# timm's functions that give the names of older files and of other projects (torchvision's and the
# authors' own) timm's names; one of them at most in a model's module.
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


@dataclass(frozen=True)
class EncoderTensors:
    """An encoder's tensors in a file.

    Attributes:
        tensors: by the encoder's names.
        dropped: reason by the file's name.
        unknown: names in the file that the encoder's network has no place for.
    """

    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    unknown: list[str]


def _flat(name: str) -> str:
    """A name as it is with and without timm's wrappers, which give feature maps.

    They put the network into a module, or its parts "stages.0" beside each other as "stages_0".
    """
    return name.replace(".", "_").removeprefix("body_").removeprefix("model_")


def _complete(state: Mapping[str, Tensor], wanted: Mapping[str, str]) -> str | None:
    """The flat prefix under which a file has all of an encoder's tensors, the shortest; None: none."""
    flat = {_flat(key) for key in state}
    needed = [name for name in wanted if not name.endswith(_flat(UNUSED))]
    prefixes = sorted({k[: -len(needed[0])] for k in flat if k.endswith(needed[0])}, key=len)
    return next((p for p in prefixes if all(p + name in flat for name in needed)), None)


def _renamed(state: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """A file's tensors under timm's names, where timm knows the file's."""
    module = vars(sys.modules[type(network).__module__])
    rename = next((module[name] for name in _FILTERS if name in module), None)
    if rename is None:
        return state
    takes_network = len(inspect.signature(rename).parameters) > 1
    try:
        return rename(dict(state), network) if takes_network else rename(dict(state))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return state  # each of these functions expects its own files only


def find_encoder(
    state: Mapping[str, Tensor], names: Iterable[str], model: str
) -> EncoderTensors | None:
    """Find a timm encoder's tensors in a file, by themselves or within another network.

    Args:
        state: the file's tensors by their names.
        names: of the encoder's tensors.
        model: timm's name of the encoder.

    Returns:
        None where the file does not have all of them.
    """
    wanted = {_flat(name): name for name in names}
    network = timm.create_model(model)  # with the layers that follow the last feature map
    found = _matched(state, wanted, network)
    if found is None or found.unknown:
        found = _matched(_renamed(state, network), wanted, network) or found
    return found


def _matched(
    state: Mapping[str, Tensor], wanted: Mapping[str, str], network: nn.Module
) -> EncoderTensors | None:
    """The encoder's tensors by names that are timm's already."""
    prefix = _complete(state, wanted)
    if prefix is None:
        return None
    classifier = network.pretrained_cfg["classifier"] or ()
    classifiers = (classifier,) if isinstance(classifier, str) else classifier
    classifiers = tuple(f"{_flat(name)}_" for name in classifiers)
    others = {_flat(name) for name in network.state_dict()}
    tensors, dropped, unknown = {}, {}, []
    for key, tensor in state.items():
        name = _flat(key).removeprefix(prefix)
        if not _flat(key).startswith(prefix):
            dropped[key] = "they are not of the encoder"
        elif name in wanted:
            tensors[wanted[name]] = tensor
        elif name.startswith(classifiers):
            dropped[key] = "the classifier"
        elif name in others:
            dropped[key] = "layers after the last feature map"
        elif prefix:
            dropped[key] = "they are not of the encoder"
        else:
            unknown.append(key)
    return EncoderTensors(tensors, dropped, unknown)
