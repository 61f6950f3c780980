"""The trainer that Detectron2's users know, around the training step of PPPC."""

from __future__ import annotations

import weakref

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from timm.layers import convert_sync_batchnorm

from ..checkpoint import StrictCheckpointer
from ..data import build_test_loader, build_train_loader, check_data, label_reader
from ..data.build import TestLoader
from ..evaluation import MeanIoUEvaluator, UncertaintyEvaluator
from ..segmentor import PPPCSegmentor
from ..solver import build_optimizer
from .adaptation_loop import AdaptationLoop
from .hooks import BatchStatisticsAverage, ResumableBestCheckpointer, TeacherUpdate
from .pictures import TrainingPictures

__all__ = ["Trainer"]


def check_batch_sizes(cfg: CfgNode, model: PPPCSegmentor) -> None:
    """See that no process gets fewer images than the decoder's BatchNorm can average over.

    Raises:
        ValueError: a batch is too small.
    """
    needed = getattr(model.student.sem_seg_head, "min_batch", 1) * comm.get_world_size()
    keys = ["IMS_PER_BATCH"] + ["TARGET_IMS_PER_BATCH"] * cfg.PPPC.SELF_TRAINING.ENABLED
    for key in keys:
        if cfg.SOLVER[key] < needed:
            raise ValueError(
                f"SOLVER.{key} is {cfg.SOLVER[key]}: {cfg.MODEL.SEM_SEG_HEAD.NAME} on "
                f"{comm.get_world_size()} processes needs {needed} at least, or "
                "MODEL.SYNC_BATCH_NORM True on several GPUs"
            )


class Trainer(DefaultTrainer):
    """Detectron2's trainer with the loop, the data, the optimiser and the hooks of PPPC.

    Raises:
        KeyError, FileNotFoundError: from :func:`pppc.data.check_data`, before the model is built.
        ValueError: likewise; or the configuration does not fit the model or the processes.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # DefaultTrainer's own builds another loop
        if cfg.SOLVER.REFERENCE_WORLD_SIZE:
            raise ValueError("SOLVER.REFERENCE_WORLD_SIZE must be 0: batches are never scaled here")
        check_data(cfg)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        model = self.build_model(cfg)
        if cfg.MODEL.SYNC_BATCH_NORM and comm.get_world_size() > 1:
            if model.device.type != "cuda":
                raise ValueError("MODEL.SYNC_BATCH_NORM needs MODEL.DEVICE cuda")
            model = convert_sync_batchnorm(model)
        else:
            check_batch_sizes(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = build_train_loader(cfg, seed)
        # None: Detectron2's default names a CUDA device.
        device_ids = None if model.device.type == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
        self._trainer = AdaptationLoop(cfg, model, data_loader, optimizer, seed)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = StrictCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's; the data go on where the resumed run stopped."""
        super().resume_or_load(resume)
        self.data_loader.start_at(self.start_iter)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks and the method's, which come first so that checkpoints hold them."""
        loop = self._trainer
        method: list[HookBase] = []
        if loop.self_training:
            method.append(TeacherUpdate(loop.segmentor, self.cfg.PPPC.TEACHER.MOMENTUM))
            method.append(loop.dacs_mixing)
        if loop.segmentor.prototypes is not None:
            method.append(loop.prototype_update)
        if comm.get_world_size() > 1 and not self.cfg.MODEL.SYNC_BATCH_NORM:
            method.append(BatchStatisticsAverage(loop.segmentor))
        others = super().build_hooks()
        if comm.is_main_process():
            # Before the writers, which come last.
            others[-1:-1] = [TrainingPictures(self.cfg), *self._best_checkpointer()]
        return method + others

    def _best_checkpointer(self) -> list[HookBase]:
        """Keep the checkpoint of the best mean IoU on the first test set, if there is one."""
        names = self.cfg.DATASETS.TEST
        if not names:
            return []
        # Detectron2 names the data set where it evaluates on several.
        metric = "sem_seg/mIoU" if len(names) == 1 else f"{names[0]}/sem_seg/mIoU"
        period = self.cfg.TEST.EVAL_PERIOD
        return [ResumableBestCheckpointer(self.cfg.OUTPUT_DIR, period, self.checkpointer, metric)]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: PPPCSegmentor) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> TestLoader:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        reader = label_reader(cfg, dataset_name)
        # What the source labels decides which means are customary.
        means = {
            name: class_names
            for source in cfg.DATASETS.TRAIN
            for name, class_names in label_reader(cfg, source).means.items()
        }
        evaluators: list[DatasetEvaluator] = [MeanIoUEvaluator(reader, means)]
        if cfg.TEST.UNCERTAINTY:
            evaluators.append(UncertaintyEvaluator(reader))
        return DatasetEvaluators(evaluators)
