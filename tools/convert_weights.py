#!/usr/bin/env python3
"""Give other projects' weights this project's names, or the other way round.

    tools/convert_weights.py IN OUT.pth --config-file configs/FILE.yaml [KEY VALUE ...]
    tools/convert_weights.py IN OUT.pth --config-file configs/FILE.yaml --to daformer

IN may be a file or an address (https://, detectron2://, hf://OWNER/MODEL). The configuration says which
network the weights are for. It is printed which tensors went where; the tool fails where one of the
student's is not filled, or one of the file's is left over, for no known reason.

--trust takes the tensors out of a file that holds more, such as objects of mmengine or a whole network.
Neither that code nor any of the file's is run, so it need not be installed.
"""

import argparse

import pppc
import torch
from detectron2.modeling import build_model
from pppc.arguments import ToolParser
from pppc.checkpoints import LAYOUTS, from_other_layout, read_weights, to_other_layout
from pppc.checkpoints.checkpointer import describe
from pppc.checkpoints.classes import class_names_of, is_classifier
from pppc.checkpoints.handles import local_path
from pppc.errors import InputError, run_tool
from pppc.files import new_file, whole_file


def convert(arguments: argparse.Namespace) -> dict[str, object]:
    """What to write: the tensors under their new names, and the names of the classes where known.

    Raises:
        InputError: from reading, or the weights don't fit the network.
    """
    cfg = pppc.load_config(arguments.config_file, ["MODEL.DEVICE", "cpu", *arguments.opts])
    ours = build_model(cfg).student.state_dict()
    path = local_path(arguments.input)
    content = read_weights(path, arguments.trust)
    encoder = cfg.MODEL.TIMM.NAME
    translation = from_other_layout(content["model"], ours, arguments.input, encoder)
    state = content["model"] if translation is None else translation.state
    if translation is not None:
        print(describe(translation))
    student = {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
    for key, tensor in student.items():
        if key not in ours or ours[key].shape != tensor.shape:
            theirs = tuple(ours[key].shape) if key in ours else "no such tensor"
            classes = f": MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(tensor)}" * is_classifier(key)
            raise InputError(
                f"{arguments.input}: {key} is {tuple(tensor.shape)}, the configured network has "
                f"{theirs}. Give the configuration of the network that the weights are of{classes}"
            )
    if arguments.to is not None:
        return {"state_dict": to_other_layout(student, arguments.to)}
    names = class_names_of(content, path)
    return {"model": state, **({"class_names": names} if names else {})}


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("input", metavar="IN")
    parser.add_argument("output", metavar="OUT")
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--to", choices=LAYOUTS, help="write another project's names")
    parser.add_argument(
        "--trust", action="store_true", help="take the tensors of a file that holds more than those"
    )
    parser.add_argument("opts", nargs="*", help="KEY VALUE ...")
    arguments = parser.parse_intermixed_args()
    output = new_file(arguments.output, "OUT")
    content = convert(arguments)
    with whole_file(output) as unfinished:
        torch.save(content, unfinished)
    print(f"{output}: {len(next(iter(content.values())))} tensors")


if __name__ == "__main__":
    run_tool(main)
