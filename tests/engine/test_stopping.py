"""Runs that are told to end, or that fail, end: at once, all processes, with a checkpoint if possible."""

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from pppc.checkpoints.reading import checkpoint_damage
from pppc.data.mapper import TargetMapper
from pppc.engine import Trainer
from pppc.engine.hooks import TeacherUpdate
from pppc.errors import InputError, Stopped
from pppc.evaluation import MeanIoUEvaluator
from tiny_run import tiny_config

OPTIONS = (
    "SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2, "VIS_PERIOD", 0,
    "DATALOADER.NUM_WORKERS", 0,
)  # fmt: skip


def train(output, *opts):
    trainer = Trainer(tiny_config(output, *OPTIONS, *opts))
    trainer.resume_or_load(resume=False)
    trainer.train()


def tell(*processes, number=signal.SIGTERM):
    for process in processes or (os.getpid(),):
        os.kill(process, number)


def before(monkeypatch, owner, name, act):
    """Let ``act`` be called before each call of a function, with the number of the call."""
    function, calls = getattr(owner, name), []

    def patched(*args, **kwargs):
        calls.append(name)
        act(len(calls))
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, patched)


@pytest.mark.parametrize(
    ("owner", "name", "call", "wait"),
    [
        (TargetMapper, "__call__", 5, 300),  # iteration 2 waits for its first image
        (MeanIoUEvaluator, "process", 2, 300),  # the evaluation after iteration 1
        (torch, "save", 2, 0),  # its checkpoint; the first call measures the size
    ],
)
def test_a_signal_need_not_wait_and_leaves_a_whole_checkpoint(
    tmp_path, datasets_root, monkeypatch, owner, name, call, wait
):
    before(monkeypatch, owner, name, lambda n: n == call and (tell(), time.sleep(wait)))
    with pytest.raises(Stopped) as stopped:
        train(tmp_path)
    path = tmp_path / "model_0000001.pth"
    assert stopped.value.message == (
        f"stopped by SIGTERM after iteration 1; {path} is written: continue with --resume"
    )
    assert stopped.value.code == 128 + signal.SIGTERM
    assert checkpoint_damage(path) is None
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the process is the user's again


def test_the_second_signal_ends_a_run_at_once(tmp_path, datasets_root, monkeypatch):
    def twice(call):
        if call == 2:
            tell()
            tell(number=signal.SIGINT)
            time.sleep(300)

    before(monkeypatch, torch, "save", twice)
    with pytest.raises(Stopped, match="at once by a second signal, SIGINT"):
        train(tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if ".pth" in path.name]


def test_a_signal_before_the_first_iteration(tmp_path, datasets_root, monkeypatch):
    before(monkeypatch, TargetMapper, "__call__", lambda n: (tell(), time.sleep(300)))
    with pytest.raises(Stopped, match="^stopped by SIGTERM before the first iteration$"):
        train(tmp_path)
    assert not list(tmp_path.glob("*.pth"))


def test_an_error_in_an_early_hook_is_that_error(tmp_path, datasets_root, monkeypatch):
    def fail(self):
        raise RuntimeError("made up")

    monkeypatch.setattr(TeacherUpdate, "before_train", fail)
    with pytest.raises(RuntimeError, match="^made up$"):
        train(tmp_path)


def process(rank, folder, case):
    """One of two processes; the first one is slow. How it ended goes to a file."""
    torch.set_num_threads(1)  # threads do not survive a fork
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    comm.create_local_process_group(2)
    both = comm.all_gather(os.getpid())

    def signals(call):
        if rank == 0:
            time.sleep(1)  # the other one waits by then
            tell(*both)
            time.sleep(300)

    def unreadable(call):
        if rank == 0:
            raise InputError("street.png: cut off")

    with pytest.MonkeyPatch.context() as patch:
        if case == "evaluation":
            before(patch, MeanIoUEvaluator, "process", signals)
        elif case == "data":
            before(patch, TargetMapper, "__call__", lambda n: n == 3 and signals(n))
        else:
            before(patch, MeanIoUEvaluator, "process", unreadable)
        try:
            train(f"{folder}/run")
        except (Stopped, InputError) as end:
            with open(f"{folder}/{rank}", "w") as file:
                file.write(str(getattr(end, "message", end)))
    os._exit(0)


@pytest.mark.parametrize(
    ("case", "iteration"), [("evaluation", 1), ("data", 1), ("unreadable", None)]
)
def test_two_processes_end_together_one_of_them_slow(tmp_path, datasets_root, case, iteration):
    mp.start_processes(process, (str(tmp_path), case), nprocs=2, start_method="fork")
    first, second = ((tmp_path / str(rank)).read_text() for rank in range(2))
    assert first == second
    if case == "unreadable":
        assert "street.png: cut off" in first
    else:
        path = tmp_path / f"run/model_{iteration:07d}.pth"
        assert f"SIGTERM after iteration {iteration}; {path}" in first
        assert checkpoint_damage(path) is None
