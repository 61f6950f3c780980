#!/usr/bin/env python3
"""Train and evaluate; the command line of Detectron2.

    tools/train_net.py --config-file configs/FILE.yaml [--resume] [--num-gpus N] [KEY VALUE ...]
    tools/train_net.py --config-file configs/FILE.yaml --eval-only MODEL.WEIGHTS FILE.pth
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pppc  # before Detectron2: it says what is missing
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from pppc.checkpoint import StrictCheckpointer
from pppc.data import check_data
from pppc.engine import Trainer


def setup(args: argparse.Namespace) -> CfgNode:
    """The configuration from the defaults, the file and the command line.

    Raises:
        FileExistsError: a new run would overwrite another one.
        ValueError: there is nothing to evaluate.
    """
    cfg = pppc.load_config(args.config_file, args.opts)
    if args.eval_only:
        resumable = args.resume and os.path.exists(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"))
        if not cfg.MODEL.WEIGHTS and not resumable:
            raise ValueError(
                "nothing to evaluate: give MODEL.WEIGHTS FILE.pth, or --resume for the last "
                f"checkpoint in {cfg.OUTPUT_DIR}"
            )
    elif not args.resume and os.path.exists(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint")):
        raise FileExistsError(
            f"{cfg.OUTPUT_DIR} holds a run already: continue it with --resume, or choose another "
            "OUTPUT_DIR"
        )
    cfg.freeze()
    return cfg


def prepare_output(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Detectron2's default set-up, and the log of this project beside Detectron2's."""
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="pppc")


def free_path(path: str) -> str:
    """``path``, or where such a file exists, the first of NAME_2, NAME_3, ... that doesn't."""
    name, suffix = os.path.splitext(path)
    number = 1
    while os.path.exists(path):
        number += 1
        path = f"{name}_{number}{suffix}"
    return path


def evaluate(cfg: CfgNode, args: argparse.Namespace) -> dict:
    """Evaluate a checkpoint; log and results.json go to OUTPUT_DIR/inference.

    Earlier results stay: the second evaluation's are in results_2.json.
    """
    inference = cfg.clone()
    inference.defrost()
    inference.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "inference")  # the run's files stay
    prepare_output(inference, args)
    with input_errors():
        check_data(cfg, training=False)
        model = Trainer.build_model(cfg)
        checkpointer = StrictCheckpointer(model, cfg.OUTPUT_DIR, trained=True)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        with open(free_path(os.path.join(inference.OUTPUT_DIR, "results.json")), "w") as file:
            json.dump({"options": args.opts, **results}, file, indent=1)
    return results


@contextmanager
def input_errors() -> Iterator[None]:
    """End the program with one line where the user's input is at fault."""
    try:
        yield
    except (OSError, KeyError, ValueError) as error:
        sys.exit(f"error: {error.args[0] if isinstance(error, KeyError) else error}")


def main(args: argparse.Namespace) -> dict:
    with input_errors():
        cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args)
    prepare_output(cfg, args)
    with input_errors():
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    launch(
        main,
        arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )
