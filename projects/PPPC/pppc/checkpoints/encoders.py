"""timm's and torchvision's encoders: their names, as in the file, for the encoder at hand."""

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .networks import trained_network

# BatchNorm counts batches only where it has no momentum; old files lack the count.
UNUSED = ".num_batches_tracked"

# Why a tensor is dropped that might have been wanted.
OTHER_NETWORK = "they are not of the network that is taken"

# timm's functions that give the names of older files and of other projects (torchvision's and the
# authors' own) timm's names; one of them at most in a model's module.
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")


@dataclass(frozen=True)
class EncoderTensors:
    """An encoder's tensors in a file.

    Attributes:
        prefix: what stands before their names.
        tensors: by the encoder's names.
        dropped: reason by the file's name.
        unknown: names in the file that the encoder's network has no place for.
    """

    prefix: str
    tensors: dict[str, Tensor]
    dropped: dict[str, str]
    unknown: list[str]

    @property
    def lost(self) -> list[str]:
        """Names in the file of what might have been wanted."""
        return [*self.unknown, *(k for k, why in self.dropped.items() if why == OTHER_NETWORK)]


def _flat(name: str) -> str:
    """A name as it is with and without timm's wrappers, which give feature maps.

    They put the network into a module, or its parts "stages.0" beside each other as "stages_0".
    """
    return name.replace(".", "_").removeprefix("body_").removeprefix("model_")


def _flat_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """A file's names by their flat form; where two would be one, wrappers' names are kept."""
    names = {_flat(key): key for key in state}
    return names if len(names) == len(state) else {key.replace(".", "_"): key for key in state}


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
    state: Mapping[str, Tensor],
    names: Iterable[str],
    network: nn.Module,
    path: str = "the file",
) -> EncoderTensors | None:
    """Find a timm encoder's tensors in a file, by themselves or within another network.

    Args:
        state: the file's tensors by their names.
        names: of the encoder's tensors.
        network: timm's model of the encoder, with the layers that follow the last feature map.

    Returns:
        None where the file does not have all of them.
    """
    wanted = {_flat(name): name for name in names}
    readings = [
        _matched(names, wanted, network, path) for names in (state, _renamed(state, network))
    ]
    shapes = {_flat(name): tensor.shape for name, tensor in network.state_dict().items()}

    def misfit(one: EncoderTensors) -> tuple[int, int]:
        others = [k for k, tensor in one.tensors.items() if tensor.shape != shapes.get(_flat(k))]
        return len(one.lost), len(others)  # timm's functions resample what has another size, too

    return min((one for one in readings if one), key=misfit, default=None)


def _matched(
    state: Mapping[str, Tensor], wanted: Mapping[str, str], network: nn.Module, path: str
) -> EncoderTensors | None:
    """The encoder's tensors by names that are timm's already."""
    keys = _flat_names(state)
    needed = [name for name in wanted if not name.endswith(_flat(UNUSED))]
    starts = [flat.removesuffix(needed[0]) for flat in keys if flat.endswith(needed[0])]
    # By what stands before the encoder's names in the file.
    prefixes = {
        keys[start + needed[0]][: -len(needed[0])]: start
        for start in starts
        if all(start + name in keys for name in needed)
    }
    if not prefixes:
        return None
    prefix = trained_network(list(prefixes), state, path)
    taken = prefixes.pop(prefix)
    averages = tuple(start for start in prefixes.values() if not taken.startswith(start))
    classifier = network.pretrained_cfg["classifier"] or ()
    classifiers = (classifier,) if isinstance(classifier, str) else classifier
    classifiers = tuple(f"{_flat(name)}_" for name in classifiers)
    others = {_flat(name) for name in network.state_dict()}
    parts = {name.split("_")[0] for name in others}
    tensors, dropped, unknown = {}, {}, []
    for flat, key in keys.items():
        name = flat.removeprefix(taken)
        if not flat.startswith(taken) or averages and flat.startswith(averages):
            dropped[key] = OTHER_NETWORK
        elif name in wanted:
            tensors[wanted[name]] = state[key]
        elif name.startswith(classifiers):
            dropped[key] = "the classifier"
        elif name in others:
            dropped[key] = "layers after the last feature map"
        elif name.split("_")[0] in parts:
            unknown.append(key)
        else:
            dropped[key] = OTHER_NETWORK
    return EncoderTensors(prefix, tensors, dropped, unknown)
