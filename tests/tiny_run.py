"""A training small enough to run within a test."""

from pathlib import Path

import pppc
import torch
from conftest import REPOSITORY
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.engine.solver import build_optimizer

OPTIONS = [
    "MODEL.TIMM.NAME", "test_resnet", "MODEL.WEIGHTS", "", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16",
    "MODEL.PROBABILISTIC_HEAD.DIM", "16", "INPUT.CROP.SIZE", "[48, 64]",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "128",
    "INPUT.TARGET.MIN_SIZE", "64", "INPUT.TARGET.MAX_SIZE", "128",
    "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "128",
    "SOLVER.IMS_PER_BATCH", "2", "SOLVER.TARGET_IMS_PER_BATCH", "2",
    "SOLVER.MAX_ITER", "6", "SOLVER.WARMUP_ITERS", "1", "SOLVER.CHECKPOINT_PERIOD", "3",
    "TEST.EVAL_PERIOD", "6", "VIS_PERIOD", "5", "PPPC.CONTRAST.START_ITER", "1",
    "PPPC.SELF_TRAINING.START", "0.0", "PPPC.CLASS_BALANCE.PREDICTION", "0.0",
    "TEST.SELECTION.IMAGES", "3", "TEST.REPORT_IMAGES", "0",
    # In six iterations no pseudo-label becomes as sure as in thousands.
    "PPPC.SELF_TRAINING.THRESHOLD", "0.05",
]  # fmt: skip


SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "test_convnext", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 16,
    "MODEL.PROBABILISTIC_HEAD.DIM", 8, "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", 8,
]  # fmt: skip


def default_config(*opts: object) -> CfgNode:
    """The defaults, and ``opts``."""
    cfg = get_cfg()
    pppc.add_pppc_config(cfg)
    cfg.merge_from_list(list(opts))
    return cfg


def loop_of(cfg: CfgNode, batches: object = None) -> AdaptationLoop:
    """The loop of a configuration, its weights random, with its own hooks."""
    torch.manual_seed(0)
    segmentor = build_model(cfg).train()
    loop = AdaptationLoop.from_config(cfg, segmentor, batches, build_optimizer(cfg, segmentor))
    loop.register_hooks(loop.hooks())
    return loop


def demo_config(method: str) -> Path:
    """The demo pair's configuration of a method."""
    return REPOSITORY / "configs" / f"demo_gta_to_cityscapes_{method}.yaml"


def tiny_config(output: Path, *opts: object, method: str = "pppc") -> CfgNode:
    """The demo pair's configuration, for six iterations of seconds in all, and ``opts``."""
    options = [*OPTIONS, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(output), *opts]
    return pppc.load_config(demo_config(method), options)


def run_folder(folder: Path, *opts: object, method: str = "pppc") -> Path:
    """The folder of a run that has its configuration and final checkpoint, of random weights."""
    folder.mkdir(exist_ok=True)
    shares = ["PPPC.CLASS_WEIGHTS.FREQUENCIES", [1 / 19] * 19]  # as a run counts them
    cfg = tiny_config(folder, *shares, *opts, method=method)
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.student.sem_seg_head.classifier[1].weight)
    checkpointer = StrictCheckpointer(model, str(folder), cfg=cfg)
    checkpointer.save("model_final", trainer={"config": cfg.dump()}, iteration=5)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder
