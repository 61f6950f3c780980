"""Train and evaluate; the command line of Detectron2.

    %(prog)s --config-file configs/FILE.yaml [--resume] [--num-gpus N] [KEY VALUE ...]
    %(prog)s --config-file configs/FILE.yaml --eval-only MODEL.WEIGHTS FILE.pth

Several machines: --num-machines, --machine-rank and --dist-url on each, or torchrun in the place of python.
SIGTERM and Ctrl-C write a checkpoint, from which --resume goes on.
"""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
from logging.handlers import MemoryHandler
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup, launch
from detectron2.engine.hooks import CallbackHook
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException

from ..arguments import ToolParser
from ..checkpoints.trained_model import trained_model
from ..config import load_config
from ..config.checks import check_config
from ..config.device import with_inference_device
from ..data import check_data
from ..data.data_file import register_data_file_of
from ..engine import Trainer
from ..engine.calibration import calibrate_trained
from ..engine.resume import last_checkpoint, starting_point
from ..engine.run_folder import settled
from ..engine.stopping import StopOnSignal
from ..errors import InputError, Stopped
from ..files import free_path, user_path
from ..processes import from_main_process
from ..report import try_report

SECONDS_TO_END = 5  # of the other processes, once one has failed


class LogFile:
    """A log that is kept in memory until its file may be written: a refused command leaves none."""

    def __init__(self) -> None:
        setup_logger(distributed_rank=comm.get_rank(), name="pppc")
        self.memory = MemoryHandler(capacity=sys.maxsize, flushLevel=sys.maxsize)
        for name in ("detectron2", "fvcore", "pppc"):
            logging.getLogger(name).addHandler(self.memory)

    def open(self, folder: str) -> None:
        """Write what was logged so far, and from now on, to ``folder``."""
        rank = comm.get_rank()
        os.makedirs(folder, exist_ok=True)
        file = logging.FileHandler(Path(folder, f"log.txt.rank{rank}" if rank else "log.txt"))
        file.setFormatter(
            logging.Formatter("[%(asctime)s] %(name)s %(levelname)s: %(message)s", "%m/%d %H:%M:%S")
        )
        self.memory.setTarget(file)
        self.memory.flush()
        self.memory.flushLevel = logging.NOTSET  # each record at once


def prepare_process(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Detectron2's default set-up, which logs to the screen and seeds; no file is written."""
    silent = cfg.clone()
    silent.defrost()
    silent.OUTPUT_DIR = None
    default_setup(silent, args)
    logging.getLogger("pppc").info("The whole configuration:\n%s", cfg.dump())


def evaluate(cfg: CfgNode, args: argparse.Namespace, log: LogFile) -> None:
    """Evaluate a checkpoint; log and results.json go to OUTPUT_DIR/inference.

    Earlier results stay: the second evaluation's are in results_2.json.

    Raises:
        InputError: there is nothing to evaluate, or not on these data sets.
    """
    weights, checkpoint = cfg.MODEL.WEIGHTS, None
    if args.resume:
        instead = f"evaluating MODEL.WEIGHTS {weights!r}"
        checkpoint = from_main_process(lambda: last_checkpoint(cfg, args.config_file, instead))
    if checkpoint is not None:
        weights = str(checkpoint.path)
    if not weights:
        raise InputError(
            "nothing to evaluate: give MODEL.WEIGHTS FILE.pth, or --resume for the last "
            f"checkpoint in {cfg.OUTPUT_DIR}"
        )
    if not cfg.DATASETS.TEST:
        raise InputError("nothing to evaluate on: name labeled data sets by DATASETS.TEST")
    prepare_process(cfg, args)
    cfg = with_inference_device(cfg)
    register_data_file_of(cfg)
    check_data(cfg, training=False)
    cfg.MODEL.WEIGHTS = weights
    model = trained_model(cfg, checked=checkpoint is not None)
    calibrate_trained(cfg, model)
    folder = os.path.join(cfg.OUTPUT_DIR, "inference")  # the run's files stay
    log.open(folder)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        with open(free_path(os.path.join(folder, "results.json")), "w") as file:
            json.dump({"options": args.opts, "weights": weights, **results}, file, indent=1)


def train(cfg: CfgNode, args: argparse.Namespace, log: LogFile) -> None:
    """Train, from the beginning or, with --resume, from the last checkpoint.

    Raises:
        InputError: from :func:`starting_point`, before anything is built; or from
            :class:`Trainer`, before anything is written.
    """
    check_config(cfg)
    arguments = (cfg, args.resume, args.allow_changes, comm.get_world_size(), args.config_file)
    checkpoint = from_main_process(lambda: starting_point(*arguments))
    if checkpoint is not None:
        cfg = settled(cfg, checkpoint.config)
    prepare_process(cfg, args)
    trainer = Trainer(cfg)
    trainer.start_from(checkpoint)
    open_log = CallbackHook(before_train=lambda trainer: log.open(cfg.OUTPUT_DIR))
    trainer.register_hooks([open_log])
    trainer.train()
    if comm.is_main_process() and cfg.TEST.REPORT_IMAGES:
        try_report([cfg.OUTPUT_DIR], images=cfg.TEST.REPORT_IMAGES)


def run(args: argparse.Namespace) -> None:
    """One process's work."""
    args.config_file = user_path(args.config_file, "--config-file")
    cfg = load_config(args.config_file, args.opts)
    log = LogFile()
    try:
        (evaluate if args.eval_only else train)(cfg, args, log)
    except InputError:
        raise
    except Exception:
        logging.getLogger("pppc").exception("This is a fault of the program:")
        raise


def run_and_report(args: argparse.Namespace, report: str) -> None:
    """One of several processes; the line with which it ends goes to a file, for the first one."""
    try:
        run(args)
    except (InputError, Stopped) as error:
        status, line = (
            (error.code, error.message) if isinstance(error, Stopped) else (2, f"error: {error}")
        )
        try:
            with open(report, "x") as file:  # the first to fail reports
                json.dump([status, line], file)
        except FileExistsError:
            pass
        sys.exit(status)


def run_processes(args: argparse.Namespace) -> int:
    """Launch all processes of this machine; returns the exit status.

    A signal goes on to them, so that they stop as one process does; a second one ends them at once.
    Where one fails, the others are ended soon after it.

    Raises:
        Stopped: a signal ended a process.
    """
    received: list[signal.Signals] = []
    children: set[BaseProcess] = set()
    looks_since_failure = 0

    def pass_on(number: int, frame: object) -> None:
        received.append(signal.Signals(number))
        as_other = next(n for n, means in StopOnSignal.SIGNALS.items() if n != means == number)
        for child in active_children():
            os.kill(child.pid, as_other if len(received) == 1 else signal.SIGKILL)

    def end_survivors(number: int, frame: object) -> None:
        # PyTorch waits 30 s for those that wait for the failed one on a GPU, and hear no signal.
        nonlocal looks_since_failure
        children.update(active_children())
        looks_since_failure += any(child.exitcode for child in children)
        if looks_since_failure > SECONDS_TO_END:
            for child in children:
                child.kill()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGALRM, end_survivors)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)  # a look each second
    # That it ends the others after one has failed is no news.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        try:
            launch(
                run_and_report,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(args, str(report)),
            )
        except ProcessExitedException as error:
            if report.exists():
                status, line = json.loads(report.read_text())
                print(line, file=sys.stderr)
                return status
            if received:
                raise Stopped(f"stopped by {received[0].name}", 128 + received[0]) from error
            if error.exit_code >= 0:
                raise
            raise Stopped(
                f"one of {args.num_gpus} processes was ended by {error.signal_name}; if there is a "
                "checkpoint, continue with --resume",
                128 - error.exit_code,
            ) from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


def joined_torchrun() -> bool:
    """Whether torchrun has started this process; if so, it is now one of Detectron2's processes."""
    if not dist.is_torchelastic_launched():
        return False
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    return True


def main() -> int | None:
    parser = ToolParser(__doc__, parents=[default_argument_parser()], conflict_handler="resolve")
    # A free port; Detectron2's own default is one, so that two runs of a user would collide.
    parser.set_defaults(dist_url="auto")
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="with --resume: go on although settings changed that decide what is computed",
    )
    args = parser.parse_args()
    number = torch.cuda.device_count()
    if number and args.num_gpus > number:
        raise InputError(
            f"--num-gpus is {args.num_gpus}: PyTorch finds {number}, give that or less"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise InputError("--num-machines needs --dist-url tcp://HOST:PORT of the first machine")
    several = args.num_gpus * args.num_machines > 1
    if joined_torchrun():
        if several:
            raise InputError(
                "torchrun starts the processes: leave out --num-gpus and --num-machines"
            )
        return run(args)
    return run_processes(args) if several else run(args)
