"""The same on a GPU, by whole runs and by numbers."""

import json
import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import run_tool
from detectron2.utils import comm
from pppc.checkpoints.reading import checkpoint_damage
from pppc.engine import Trainer
from pppc.pixel_batch import PixelBatch
from tiny_run import OPTIONS, SMALL, default_config, demo_config, loop_of, tiny_config

DEVICE = "cuda"
CARDS = torch.cuda.device_count()
pytestmark = pytest.mark.skipif(
    not CARDS, reason="no CUDA device: what a GPU does was not tested here"
)


def opts(*more: object) -> list[object]:
    return [*OPTIONS, "MODEL.DEVICE", DEVICE, *more]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_trains_goes_on_predicts_and_is_exported(demo_datasets, tmp_path, precision):
    run = tmp_path / "run"
    half = ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.TYPE", precision] * (precision != "float32")
    for more in (["SOLVER.MAX_ITER", 3], ["--resume"]):
        flags = [word for word in more if word == "--resume"]
        trained = run_tool(
            "train_net.py", *flags, *(["--allow-changes"] * bool(flags)), "--config-file",
            demo_config("pppc"), *opts("OUTPUT_DIR", run, *half), *(more if not flags else []),
            DETECTRON2_DATASETS=str(demo_datasets),
        )  # fmt: skip
        assert trained.returncode == 0, trained.stderr[-3000:]
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines if "total_loss" in line][-1] == 5
    assert all(np.isfinite(line.get("total_loss", 0)) for line in lines)
    assert checkpoint_damage(run / "model_final.pth") is None
    (image, *_) = (demo_datasets / "cityscapes/leftImg8bit/val").rglob("*.png")
    predicted = run_tool(
        "predict.py", "--model", run, "--input", image, "--output", tmp_path / "predicted",
        "MODEL.DEVICE", DEVICE,
    )  # fmt: skip
    assert predicted.returncode == 0, predicted.stderr
    exported = run_tool("export_model.py", "--model", run, "--output", tmp_path / "model.pt")
    assert exported.returncode == 0, exported.stderr


def step_on(device: str) -> tuple[dict[str, float], torch.Tensor]:
    """Losses of a step, and the student's gradients."""
    torch.backends.cudnn.allow_tf32 = False
    cfg = default_config(
        *SMALL, "MODEL.DEVICE", device, "MODEL.TIMM.DROP_PATH_RATE", 0.0, "INPUT.CROP.SIZE", (64, 64),
        "MODEL.SEM_SEG_HEAD.DROPOUT", 0.0, "PPPC.CONTRAST.START_ITER", 0, "SEED", 0,
        "PPPC.SELF_TRAINING.THRESHOLD", 0.06, "DATASETS.TRAIN", ("gta_train",), "SOLVER.BASE_LR", 1e-9,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (2, 3, 64, 96), generator=generator, dtype=torch.uint8)
    label = torch.randint(19, (2, 64, 64), generator=generator, dtype=torch.uint8)
    loop = loop_of(cfg, [(PixelBatch(image[..., :64], label), PixelBatch(image))])
    loop.train(4000, 4001)
    losses = {name: v[0] for name, v in loop.storage.latest().items() if "loss" in name}
    gradients = [p.grad.flatten() for p in loop.segmentor.student.parameters()]
    return losses, torch.cat(gradients).cpu()


def test_a_step_has_the_cpu_s_losses_and_gradients():
    (losses, gradients), (expected, of_cpu) = step_on(DEVICE), step_on("cpu")
    assert losses == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert (gradients - of_cpu).norm() < 1e-2 * of_cpu.norm()


def train_on_one_card(rank: int, output: str, number: int) -> None:
    """One of two processes that share a GPU, by gloo: NCCL wants a card for each."""
    file = f"file://{output}/rendezvous"
    dist.init_process_group("gloo", init_method=file, rank=rank, world_size=number)
    comm.create_local_process_group(number)
    trainer = Trainer(tiny_config(f"{output}/run", "MODEL.DEVICE", DEVICE, "SOLVER.MAX_ITER", 2))
    trainer.resume_or_load(resume=False)
    trainer.train()


def test_two_processes_share_a_card(demo_datasets, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "DETECTRON2_DATASETS", str(demo_datasets))
    mp.spawn(train_on_one_card, (str(tmp_path), 2), nprocs=2)
    assert checkpoint_damage(tmp_path / "run/model_final.pth") is None


@pytest.mark.skipif(CARDS < 2, reason="one CUDA device: NCCL and SyncBN were not tested")
def test_two_cards_train_with_synchronized_batch_norm(demo_datasets, tmp_path):
    trained = run_tool(
        "train_net.py", "--num-gpus", 2, "--config-file", demo_config("pppc"),
        *opts("OUTPUT_DIR", tmp_path, "MODEL.SYNC_BATCH_NORM", True, "SOLVER.MAX_ITER", 3),
        DETECTRON2_DATASETS=str(demo_datasets),
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr[-3000:]
