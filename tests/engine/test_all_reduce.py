"""Statistics of a batch that is spread over processes equal those of the whole batch."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pppc.engine.hooks import BatchStatisticsAverage
from pppc.method.prototypes import GaussianPrototypes
from pppc.method.teacher import pseudo_label
from pppc.processes import sum_over_processes
from torch import nn


def whole_batch():
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 3, 4, 6, 6, generator=generator)
    label = torch.randint(3, (3, 6, 6), generator=generator)
    label[0] = 2  # the first process sees one class only
    probabilities = torch.randn(3, 5, 6, 6, generator=generator).softmax(dim=1)
    return mean, log_var, label, probabilities


def statistics(mean, log_var, label, probabilities):
    prototypes = GaussianPrototypes(5, 4, "ema", "count_normalized", momentum=0.9, forgetting=1.0)
    for _ in range(2):
        prototypes.update(mean, log_var, label, sum_over_processes)
    share = pseudo_label(probabilities, 0.5, sum_over_processes).confident_share
    return {**prototypes.state_dict(), "share": share}


def process(rank, folder):
    torch.set_num_threads(1)  # threads do not survive a fork
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    share = slice(0, 1) if rank == 0 else slice(1, 3)  # of unequal sizes
    batch = [part[share] for part in whole_batch()]
    result = statistics(*batch)
    if rank == 0:  # a process may ask for itself alone, which would hang if it waited for the other
        assert pseudo_label(batch[-1], threshold=0.0).confident_share == 1
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 5.0]) + rank)
    norm.running_var.fill_(4.0 + 4 * rank)
    BatchStatisticsAverage(nn.Sequential(norm)).after_step()
    result |= {"mean": norm.running_mean, "var": norm.running_var}
    torch.save(result, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path):
    # Spawned processes would spend 20 times as long on importing.
    mp.start_processes(process, (str(tmp_path),), nprocs=2, start_method="fork")
    expected = statistics(*whole_batch())
    expected |= {"mean": torch.tensor([1.5, 5.5]), "var": torch.tensor([6.0, 6.0])}
    assert 0 < expected["share"] < 1
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pth"), expected)
