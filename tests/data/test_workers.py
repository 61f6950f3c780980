"""Worker processes end with their parent and by nothing else; nobody waits for what cannot come."""

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from pppc.data import build_test_loader, build_train_loader
from pppc.data.mapper import collate
from pppc.data.sampling import PairedLoader, SampleStream
from pppc.errors import InputError, Stopped
from pppc.processes import map_in_processes
from tiny_run import tiny_config


def toy_loader(act=lambda position: None, size=4):
    """Two streams with a worker each; ``act`` is called in the worker before each sample."""

    def mapper(record, train_id, seed):
        act(record["id"])
        image = torch.full((3, size, size), record["id"], dtype=torch.uint8)
        return {"image": image, "file": str(os.getpid())}

    records = [{"id": i, "file_name": f"{i}.png"} for i in range(100)]
    streams = [
        SampleStream(records, lambda position: (position, None), mapper, seed) for seed in (0, 1)
    ]
    return PairedLoader(streams, [1, 1], collate, 2, 0, 1)


def alive(pids):
    """Which processes are there; those that nobody has waited for yet are not."""

    def state(pid):
        try:
            return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return "gone"

    return [pid for pid in pids if state(pid) not in ("gone", "Z", "X")]


def use(loader, pids):
    """Take batches after a signal to all workers, and then fail with the loader in the traceback."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    batches = iter(loader)
    for batch in next(batches):
        pids.send(int(batch.files[0]))
    pids.recv()  # they got signals, not from here: as all processes of a run do
    pids.recv()
    pids.send([next(batches)[0].image.max().item() for _ in range(9)])
    if pids.recv() == "fail":
        raise RuntimeError("made up")
    time.sleep(600)


@pytest.mark.parametrize("end", ["fail", "killed"])
def test_workers_outlive_signals_to_all_and_end_with_their_parent(end):
    ours, theirs = multiprocessing.Pipe()
    run = multiprocessing.get_context("fork").Process(target=use, args=(toy_loader(), theirs))
    run.start()
    pids = [ours.recv(), ours.recv()]
    for number in (signal.SIGTERM, signal.SIGINT):
        for pid in pids:
            os.kill(pid, number)
        ours.send("signaled")
    assert ours.recv() == list(range(1, 10))
    if end == "fail":
        ours.send("fail")
    else:
        run.kill()
    run.join(60)
    assert run.exitcode == (1 if end == "fail" else -signal.SIGKILL)
    for _ in range(600):
        if not alive(pids):
            break
        time.sleep(0.1)
    assert not alive(pids)


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 137, "SIGKILL .*lower DATALOADER.NUM_WORK"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), 139, "SIGSEGV"),
        (lambda: os._exit(3), 3, "status 3"),
    ],
)
def test_a_worker_that_is_ended_is_one_line_of_the_next_batch(end, status, words):
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(toy_loader(lambda position: position == 5 and end()))
    next(batches)
    time.sleep(0.5)  # it may be dead by now, which interrupts nothing
    with pytest.raises(Stopped, match=words) as stopped:
        for _ in range(6):
            next(batches)
    assert stopped.value.code == status and "\n" not in stopped.value.message
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_full_shared_memory_is_one_line_in_training_and_evaluation(
    monkeypatch, datasets_root, tmp_path
):
    def full(*args, **kwargs):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space")

    for name in ("_new_using_fd_cpu", "_share_fd_cpu_"):  # as the workers inherit them
        monkeypatch.setattr(torch.UntypedStorage, name, full)
    with pytest.raises(InputError, match="/dev/shm is too small.*NUM_WORKERS.*--shm-size"):
        next(iter(toy_loader()))
    cfg = tiny_config(tmp_path, "DATALOADER.NUM_WORKERS", 1)
    with pytest.raises(InputError, match="/dev/shm is too small.*NUM_WORKERS.*--shm-size"):
        next(iter(build_test_loader(cfg, "cityscapes_val")))


def test_shared_memory_is_compared_with_what_the_batches_need(monkeypatch, datasets_root, tmp_path):
    cfg = tiny_config(tmp_path, "DATALOADER.NUM_WORKERS", 4)
    # Bytes: crops of 48x64 and test images with labels, whole target images, of 64x128. Fetched ahead by
    # two workers of each stream, or by four of the test set, are 2 batches each; one more is in use.
    needed = 5 * 2 * 4 * 48 * 64 + 5 * 2 * 3 * 64 * 128 + 9 * 4 * 64 * 128

    def free(number):
        monkeypatch.setattr(
            os, "statvfs", lambda path: SimpleNamespace(f_bavail=number, f_frsize=1)
        )

    free(needed)
    build_train_loader(cfg, seed=1)
    free(needed - 1)
    with pytest.raises(
        InputError, match=r"NUM_WORKERS 4 needs 0.[67] MB .*/dev/shm has 0.[67] MB.*--shm-"
    ):
        build_train_loader(cfg, seed=1)
    # The advice works.
    build_train_loader(tiny_config(tmp_path, "DATALOADER.NUM_WORKERS", 0), seed=1)


def test_loaders_leave_opencv_s_threads_to_the_user_and_take_none_in_workers(
    datasets_root, tmp_path
):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    cv2.resize(np.zeros((999, 999), np.uint8), (500, 500))  # starts them
    found = []
    try:

        def act(position):
            assert cv2.getNumThreads() == 1

        next(iter(toy_loader(act)))
        build_train_loader(tiny_config(tmp_path, "DATALOADER.NUM_WORKERS", 2), seed=1)
        found.append(cv2.getNumThreads())
    finally:
        cv2.setNumThreads(before)
    assert found == [3]


def test_batches_are_bytes_until_they_are_on_the_device(datasets_root, tmp_path):
    cfg = tiny_config(tmp_path, "DATALOADER.NUM_WORKERS", 2)
    source, target = next(iter(build_train_loader(cfg, seed=1)))
    assert {source.image.dtype, source.label.dtype, target.image.dtype} == {torch.uint8}
    moved = source.to("cpu")
    assert moved.image.dtype == torch.float32 and moved.label.dtype == torch.int64
    assert torch.equal(moved.image.byte(), source.image)
    assert torch.equal(moved.label.byte(), source.label)


def test_a_process_that_the_system_ends_is_one_line():
    with pytest.raises(InputError, match="one of 2 processes was ended by the system"):
        list(map_in_processes(os._exit, [9], 2))
