"""A step on two processes is that of one process with both batches."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.engine.hooks import BatchStatisticsAverage
from pppc.engine.solver import build_optimizer
from pppc.method.feature_distance import FeatureDistance
from pppc.method.mixing import class_mix, class_mix_mask, present_labels
from pppc.method.prototypes import GaussianPrototypes
from pppc.method.teacher import pseudo_label
from pppc.pixel_batch import PixelBatch
from pppc.processes import sum_over_processes
from tiny_run import SMALL, default_config
from torch import nn
from torch.nn.parallel import DistributedDataParallel

NUM_CLASSES = 19


def whole_batch() -> dict[str, torch.Tensor]:
    """Two source and two target images; the images' classes differ, and their numbers of pixels."""
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(4, 3, 64, 64, generator=generator)
    label = torch.randint(6, (2, 8, 8), generator=generator)
    label[1] = torch.randint(4, 9, (8, 8), generator=generator)
    label[1, :6] = 255
    label = label.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return {"source": images[:2], "target": images[2:], "label": label}


def gradients(share: slice) -> dict[str, torch.Tensor]:
    cfg = default_config(
        *SMALL, "MODEL.TIMM.DROP_PATH_RATE", 0.0, "MODEL.SEM_SEG_HEAD.DROPOUT", 0.0,
        "PPPC.SELF_TRAINING.THRESHOLD", 0.7, "PPPC.SELF_TRAINING.IGNORE_TOP", 1,
        "PPPC.SELF_TRAINING.IGNORE_BOTTOM", 2, "PPPC.CONTRAST.TEMPERATURE", 0.1,
        "PPPC.CONTRAST.KL_WEIGHT", 1e-3, "MODEL.RECOMPUTE", "encoder", "SEED", 0,
        "DATASETS.TRAIN", ("gta_train",),
    )  # fmt: skip
    torch.manual_seed(0)
    segmentor = build_model(cfg).train()
    nn.init.normal_(segmentor.student.sem_seg_head.classifier[1].weight, std=2.0)
    segmentor.teacher.load_state_dict(segmentor.student.state_dict())
    parallel = comm.get_world_size() > 1
    model = DistributedDataParallel(segmentor, broadcast_buffers=False) if parallel else segmentor
    loop = AdaptationLoop.from_config(cfg, model, None, build_optimizer(cfg, segmentor))
    for module in segmentor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # frozen: the processes' statistics would differ

    batch = {name: tensor[share] for name, tensor in whole_batch().items()}
    source = PixelBatch(batch["source"], batch["label"])
    with EventStorage():
        target = loop.label_target(PixelBatch(batch["target"]))
    loop.prototype_update(source, target)
    # The second process draws what the second image of one process draws.
    generator = torch.Generator().manual_seed(1)
    if parallel and share.start:
        torch.randperm(len(whole_batch()["label"].unique()), generator=generator)
    classes = present_labels(source.label, sum_over_processes)
    mask = class_mix_mask(source.label, generator, classes)
    weight = class_mix(torch.ones_like(target.weight), target.weight, mask)
    mixed = PixelBatch(class_mix(source.image, target.image, mask),
                       class_mix(source.label, target.label, mask), weight)  # fmt: skip
    losses = loop.backward_pass("mixed", mixed)
    losses |= loop.backward_pass("target", target, contrast_scale=0.5, segmentation=False)
    # To the image's own pixels; of the second image a quarter has labels.
    pixels = nn.AdaptiveAvgPool2d(2)
    distance = FeatureDistance(
        lambda image: pixels(image)[:, :1], range(9), 0.1, 0.5, comm.get_world_size(), sum_over_processes
    )  # fmt: skip
    compared = {"contrast_scale": 0.5, "feature_distance": distance}
    losses |= loop.backward_pass("source", source, last=True, **compared)
    result = {name: parameter.grad for name, parameter in segmentor.student.named_parameters()}
    return result | losses | {"share": target.weight.max(), "mean": segmentor.prototypes.mean}


def embeddings():
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


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    share = slice(0, 1) if rank == 0 else slice(1, 3)  # of unequal sizes
    batch = [part[share] for part in embeddings()]
    result = statistics(*batch)
    if rank == 0:  # a process may ask for itself alone, which would hang if it waited for the other
        assert pseudo_label(batch[-1], threshold=0.0).confident_share == 1
    norm = nn.BatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 5.0]) + rank)
    norm.running_var.fill_(4.0 + 4 * rank)
    BatchStatisticsAverage(SimpleNamespace(student=norm, teacher=None)).after_step()
    result |= {"mean": norm.running_mean, "var": norm.running_var}
    torch.save((gradients(slice(rank, rank + 1)), result), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[tuple[dict, dict]]:
    """Gradients of the step, and statistics of embeddings, of each of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    # Spawned processes would spend 20 times as long on importing.
    mp.start_processes(process, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


def test_statistics_of_a_batch_over_processes_are_those_of_the_whole_batch(ranks):
    expected = statistics(*embeddings())
    expected |= {"mean": torch.tensor([1.5, 5.5]), "var": torch.tensor([6.0, 6.0])}
    assert 0 < expected["share"] < 1
    for _, of_rank in ranks:
        torch.testing.assert_close(of_rank, expected)


def test_gradient_of_two_processes_is_that_of_one_with_both_batches(ranks):
    (first, _), (second, _) = ranks
    whole = gradients(slice(0, 2))
    assert 0 < whole["share"] < 1 and first["share"] == second["share"] == whole["share"]
    for name, expected in whole.items():
        if name.startswith("loss_"):  # of each process its own part
            assert first[name] != second[name]
            torch.testing.assert_close(
                (first[name] + second[name]) / 2, expected, rtol=1e-5, atol=0
            )
        elif expected is not None:
            # Sums of thousands of terms in another order: relative to the largest of the tensor.
            scale = expected.abs().max().item()
            assert scale > 0, name
            torch.testing.assert_close(first[name], expected, rtol=1e-5, atol=1e-5 * scale)
            assert torch.equal(first[name], second[name]), name
