"""Which of several networks in a file is taken."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..errors import InputError

# Words in the names of networks that no gradient trains: moving averages, as in mean-teacher, MoCo,
# BYOL and DINO, and DAFormer's frozen ImageNet encoder.
NOT_TRAINED = {
    "averaged", "avg", "ema", "imnet", "k", "key", "momentum", "swa", "target", "teacher",
}  # fmt: skip


class Network(NamedTuple):
    """One of the networks in a file."""

    prefix: str  # before its tensors' names
    state: dict[str, Tensor]  # by what follows
    rest: dict[str, Tensor]  # the file's other tensors


def take_network(mark: str, state: Mapping[str, Tensor], path: str) -> Network | None:
    """The network whose names begin with a pattern; of several the trained one; None: there is none.

    Examples:
        >>> tensors = dict.fromkeys(["net.conv1.weight", "ema.conv1.weight"], Tensor([1]))
        >>> network = take_network(r"conv1\\.", tensors, "file.pth")
        >>> network.prefix, list(network.state), list(network.rest)
        ('net.', ['conv1.weight'], ['ema.conv1.weight'])
    """
    found = (re.match(rf"(|.*?\.)(?:{mark})", key) for key in state)
    prefixes = list(dict.fromkeys(match[1] for match in found if match))
    if not prefixes:
        return None
    prefix = trained_network(prefixes, state, path)
    others = tuple(other for other in prefixes if not prefix.startswith(other))
    taken = {key for key in state if key.startswith(prefix) and not key.startswith(others)}
    return Network(
        prefix,
        {key.removeprefix(prefix): state[key] for key in state if key in taken},
        {key: state[key] for key in state if key not in taken},
    )


def trained_network(prefixes: list[str], state: Mapping[str, Tensor], path: str) -> str:
    """The one of a file's networks that is taken: what is trained, not an average of it.

    Of several whose tensors are equal the first is taken. InputError: the names do not tell which one is
    trained.

    Examples:
        >>> trained_network(["encoder_k.", "encoder_q."], {}, "moco.pth")
        'encoder_q.'
    """
    trained = [
        prefix for prefix in prefixes if NOT_TRAINED.isdisjoint(re.split(r"[^a-z0-9]", prefix.lower()))
    ] or prefixes  # fmt: skip
    first, *others = trained
    names = [key.removeprefix(first) for key in state if key.startswith(first)]
    for other in others:
        pairs = ((state[first + name], state.get(other + name)) for name in names)
        if not all(b is not None and a.equal(b) for a, b in pairs):
            raise InputError(
                f"{path} holds several networks, and nothing tells which one is wanted: "
                f"{', '.join(trained)}. Save one alone, and set MODEL.WEIGHTS to that file: from "
                "pppc.checkpoints import read_weights; import torch; torch.save({k: v for k, v in "
                f"read_weights({str(path)!r})['model'].items() if k.startswith({first!r})}}, 'NEW.pth')"
            )
    return first
