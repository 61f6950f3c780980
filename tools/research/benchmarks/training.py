"""The training step, by stages."""

from collections.abc import Iterable, Iterator

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.engine.solver import build_optimizer
from pppc.method.pixel_batch import PixelBatch
from pppc.method.teacher import update_teacher
from pppc.modeling.meta_arch import PPPCSegmentor

from .timing import Stages

__all__ = ["TrainingStep", "Unit"]


class RandomData:
    """Endless pairs of random source and target batches of the configured sizes."""

    def __init__(self, cfg: CfgNode):
        height, width = cfg.INPUT.CROP.SIZE
        generator = torch.Generator().manual_seed(0)

        def images(number: int, width: int) -> torch.Tensor:
            return 255 * torch.rand(number, 3, height, width, generator=generator)

        label = torch.randint(
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (cfg.SOLVER.IMS_PER_BATCH, height // 32, width // 32),
            generator=generator,
        ).repeat_interleave(32, 1).repeat_interleave(32, 2)  # fmt: skip
        self.pair = (
            PixelBatch(images(cfg.SOLVER.IMS_PER_BATCH, width), label),
            PixelBatch(images(cfg.SOLVER.TARGET_IMS_PER_BATCH, 2 * width)),
        )

    def __iter__(self) -> Iterator[tuple[PixelBatch, PixelBatch]]:
        while True:
            yield self.pair


class TrainingStep:
    """The step of a configuration, with the contrast under way.

    Args:
        cfg: the configuration.
        loader: of pairs of batches; None: random ones.
        lone_contrast: time the contrast by itself, too; that keeps its inputs.
    """

    def __init__(self, cfg: CfgNode, loader: Iterable | None = None, lone_contrast: bool = True):
        torch.manual_seed(0)
        self.segmentor: PPPCSegmentor = build_model(cfg).train()
        self.stages = Stages(self.segmentor.device)
        optimizer = build_optimizer(cfg, self.segmentor)
        batches = self._timed(RandomData(cfg) if loader is None else loader)
        self.loop = AdaptationLoop.from_config(cfg, self.segmentor, batches, optimizer)
        self.loop.register_hooks(self.loop.hooks())
        self.loop.iter = max(cfg.PPPC.CONTRAST.START_ITER, cfg.SOLVER.MAX_ITER // 2)
        self.lone_contrast = lone_contrast and self.segmentor.contrast is not None
        watch = self.stages.watch
        watch(self.loop, "ambiguity_crop", "teacher on the whole target, crop")
        watch(self.loop, "label_target", "teacher on the crop")
        watch(self.loop.dacs_mixing, "strong", "strong augmentation")
        watch(self.loop, "dacs_mixing", "mixing")
        watch(self.loop, "backward_pass", lambda name, *_, **__: f"student {name}")
        watch(optimizer, "step", "optimizer")
        if self.segmentor.prototypes is not None:
            watch(self.loop, "prototype_update", "teacher on the source")
            watch(self.segmentor.prototypes, "update", "prototypes")
        if self.lone_contrast:
            self.segmentor.contrast.register_forward_pre_hook(self._keep_inputs)

    def _timed(self, loader: Iterable) -> Iterator:
        batches = iter(loader)
        while True:
            yield self.stages.call("data", next, batches)

    def _keep_inputs(self, _, inputs: tuple) -> None:
        self.contrast_inputs = [x.detach() for x in inputs]

    def run(self) -> dict[str, float]:
        """One step, moving average included; seconds by stage and of all."""
        start = self.stages.now()
        if self.segmentor.teacher is not None:
            update_teacher(self.segmentor.teacher, self.segmentor.student, 0.999)
        average = self.stages.now() - start
        with EventStorage(self.loop.iter) as self.loop.storage:
            self.loop.before_step()
            self.loop.run_step()
        seconds = self.stages.now() - start
        row = {"moving average": average} | self.stages.take()
        self.loop.iter += 1  # other random numbers
        if self.lone_contrast:
            row["(one contrast of a student's pass)"] = self._contrast()
        return row | {"seconds": seconds}

    def _contrast(self) -> float:
        """Forward and backward of the last pass's contrast alone."""
        mean, log_var, *others = self.contrast_inputs
        inputs = [mean.requires_grad_(), log_var.requires_grad_()]
        start = self.stages.now()
        sum(self.segmentor.contrast(*inputs, *others).values()).backward()
        return self.stages.now() - start


class Unit:
    """One forward and backward pass of the plain network in float32 on a source batch."""

    def __init__(self, cfg: CfgNode):
        plain = cfg.clone()
        plain.merge_from_list(
            ["SOLVER.AMP.ENABLED", False, "MODEL.RECOMPUTE", "none",
             "PPPC.CONTRAST.ENABLED", False, "PPPC.SELF_TRAINING.ENABLED", False,
             "TEST.UNCERTAINTY", False, "TEST.EVALUATE_TEACHER", False]
        )  # fmt: skip
        self.segmentor: PPPCSegmentor = build_model(plain).train()
        self.source = RandomData(plain).pair[0].to(self.segmentor.device)
        self.stages = Stages(self.segmentor.device)

    def run(self) -> float:
        """Its seconds."""
        start = self.stages.now()
        self.segmentor(self.source)["loss_segmentation"].backward()
        seconds = self.stages.now() - start
        self.segmentor.zero_grad()
        return seconds
