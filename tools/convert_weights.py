#!/usr/bin/env python3
"""Give other projects' weights this project's names, or the other way round.

    tools/convert_weights.py IN OUT.pth --config-file configs/FILE.yaml [KEY VALUE ...]
    tools/convert_weights.py IN OUT.pth --config-file configs/FILE.yaml --to daformer

IN may be a file or an address (https://, detectron2://, hf://OWNER/MODEL). The configuration says which
network the weights are for. It is printed which tensors went where; the tool fails where one of the
student's is not filled, or one of the file's is left over, for no known reason.
"""

import argparse
import sys
from pathlib import Path

import pppc
import torch
from detectron2.modeling import build_model
from pppc.checkpoint import describe
from pppc.weights import LAYOUTS, from_other_layout, read_weights, to_other_layout
from pppc.weights.handles import local_path
from torch import Tensor


def convert(arguments: argparse.Namespace) -> dict[str, Tensor]:
    """The tensors under their new names.

    Raises:
        OSError, ValueError: from reading, or the weights don't fit the network.
    """
    cfg = pppc.load_config(arguments.config_file, ["MODEL.DEVICE", "cpu", *arguments.opts])
    ours = build_model(cfg).student.state_dict()
    content = read_weights(local_path(arguments.input), arguments.trust)
    translation = from_other_layout(content["model"], ours, arguments.input)
    state = content["model"] if translation is None else translation.state
    if translation is not None:
        print(describe(translation))
    student = {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
    for key, tensor in student.items():
        if key not in ours or ours[key].shape != tensor.shape:
            theirs = tuple(ours[key].shape) if key in ours else "no such tensor"
            raise ValueError(
                f"{arguments.input}: {key} is {tuple(tensor.shape)}, the configured network has "
                f"{theirs}. Give the configuration of the network that the weights are of"
            )
    if arguments.to is None:
        return state
    return to_other_layout(student, arguments.to)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="IN")
    parser.add_argument("output", metavar="OUT", type=Path)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--to", choices=LAYOUTS, help="write another project's names")
    parser.add_argument(
        "--trust", action="store_true", help="run code that the file may hold: you know its source"
    )
    parser.add_argument("opts", nargs="*", help="KEY VALUE ...")
    arguments = parser.parse_intermixed_args()
    try:
        if arguments.output.exists():
            raise FileExistsError(f"{arguments.output} exists: choose another name")
        state = convert(arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    torch.save({"state_dict" if arguments.to else "model": state}, arguments.output)
    print(f"{arguments.output}: {len(state)} tensors")


if __name__ == "__main__":
    main()
