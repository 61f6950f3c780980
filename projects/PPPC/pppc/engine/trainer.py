"""The trainer that Detectron2's users know, around the training step of PPPC."""

import logging
import os
import weakref
from collections import OrderedDict
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.logger import setup_logger
from timm.layers import convert_sync_batchnorm

from ..checkpoints.checkpointer import StrictCheckpointer
from ..config.checks import check_config
from ..data import (
    build_test_loader,
    build_train_loader,
    check_data,
    class_frequencies,
    label_reader,
)
from ..data.build import TestLoader
from ..data.catalog import model_metadata, with_intensities
from ..data.data_file import register_data_file_of
from ..errors import InputError
from ..evaluation import MeanIoUEvaluator, UncertaintyEvaluator
from ..evaluation.drawn_pixels import PixelDraw
from ..modeling.meta_arch import PPPCSegmentor
from ..processes import from_main_process
from .adaptation_loop import AdaptationLoop
from .alarms import Alarms
from .calibration import Calibration
from .pictures import TrainingPictures
from .prediction_weight import PredictionWeight
from .resume import Checkpoint, starting_point
from .run_folder import RunFolder
from .run_hooks import (
    BestModel,
    Checkpoints,
    DiskSpace,
    Evaluation,
    LearningRate,
    MetricsWriter,
)
from .selection import Selection, selects
from .solver import build_optimizer
from .stopping import StopOnSignal, StoppableEvaluator
from .trackers import TRACKERS

logger = logging.getLogger(__name__)


def _log_with_detectron2() -> None:
    """Have this project's messages where Detectron2's are, unless a logger is set up for them."""
    ours, theirs = logging.getLogger("pppc"), logging.getLogger("detectron2")
    if not theirs.isEnabledFor(logging.INFO):
        setup_logger()  # as its DefaultTrainer does
    if not ours.handlers:
        ours.setLevel(theirs.level)
        for handler in theirs.handlers:
            ours.addHandler(handler)


def _is_no_input_error(record: logging.LogRecord) -> bool:
    """A filter: Detectron2's loop logs a traceback of every error, one of the input is one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], InputError))


def check_batch_sizes(cfg: CfgNode, model: PPPCSegmentor) -> None:
    """InputError where a process gets fewer images than the decoder's BatchNorm can average over."""
    needed = getattr(model.student.sem_seg_head, "min_batch", 1) * comm.get_world_size()
    keys = ["IMS_PER_BATCH"] + ["TARGET_IMS_PER_BATCH"] * cfg.PPPC.SELF_TRAINING.ENABLED
    for key in keys:
        if cfg.SOLVER[key] < needed:
            raise InputError(
                f"SOLVER.{key} is {cfg.SOLVER[key]}: {cfg.MODEL.SEM_SEG_HEAD.NAME} on "
                f"{comm.get_world_size()} processes needs {needed} at least, or "
                "MODEL.SYNC_BATCH_NORM True on several GPUs"
            )


@torch.enable_grad()
def freeze_unused(model: PPPCSegmentor, image_size: tuple[int, int]) -> list[str]:
    """Freeze what no output of the student depends on, such as stages that no head takes; returns its names.

    DistributedDataParallel would wait for their gradients for ever. ``image_size`` is the (height, width) of
    an image that it takes, pixels.
    """
    student = model.student.eval()
    image = torch.zeros(1, 3, *image_size, device=model.device)
    output = student(image, embedding=student.probabilistic_head is not None)
    sum(values.float().sum() for values in output if values is not None).backward()
    unused = [
        name
        for name, parameter in student.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    for name in unused:
        student.get_parameter(name).requires_grad_(False)
    student.zero_grad()
    if unused:
        logger.info("No output depends on %s and %d more", unused[0], len(unused) - 1)
    return unused


class Trainer(DefaultTrainer):
    """Detectron2's trainer with the loop, the data, the optimizer and the hooks of PPPC.

    Raises:
        InputError: from :func:`pppc.config.checks.check_config` or :func:`pppc.data.checks.check_data`,
            before the model is built; or the configuration does not fit the model or the processes.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # DefaultTrainer's own builds another loop
        _log_with_detectron2()
        check_config(cfg)
        register_data_file_of(cfg)
        check_data(cfg)
        # Drawn here, so that it is in config.yaml and in the checkpoints.
        cfg = cfg.clone()
        cfg.defrost()
        if cfg.SEED < 0:
            cfg.SEED = comm.shared_random_seed()
        model = self.build_model(cfg)
        counted = cfg.DATALOADER.RARE_CLASS_SAMPLING.ENABLED  # for the sampling, anyway
        if (counted or any(cfg.PPPC.CLASS_BALANCE.values())) and not model.class_shares.any():
            model.class_shares.copy_(torch.tensor(class_frequencies(cfg)))
        if cfg.MODEL.SYNC_BATCH_NORM and comm.get_world_size() > 1:
            if model.device.type != "cuda":
                raise InputError("MODEL.SYNC_BATCH_NORM needs MODEL.DEVICE cuda")
            model = convert_sync_batchnorm(model)
        else:
            check_batch_sizes(cfg, model)
        if comm.get_world_size() > 1:
            freeze_unused(model, tuple(cfg.INPUT.CROP.SIZE))
        optimizer = self.build_optimizer(cfg, model)
        data_loader = build_train_loader(cfg, cfg.SEED)
        # None: Detectron2's default names a CUDA device.
        device_ids = None if model.device.type == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(model, broadcast_buffers=False, device_ids=device_ids)
        self._trainer = AdaptationLoop.from_config(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = StrictCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            cfg=cfg,
            save_to_disk=comm.is_main_process(),
            max_to_keep=cfg.SOLVER.MAX_TO_KEEP,
            trainer=weakref.proxy(self),
        )
        self.folder = RunFolder(cfg.OUTPUT_DIR)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """As Detectron2's: :meth:`start_from` the last checkpoint in OUTPUT_DIR, if asked and there."""
        processes = comm.get_world_size()
        start = from_main_process(lambda: starting_point(self.cfg, resume, processes=processes))
        self.start_from(start)

    def start_from(self, checkpoint: Checkpoint | None) -> None:
        """Go on from a run's checkpoint, its data too; None: begin with MODEL.WEIGHTS."""
        intensities = self._trainer.segmentor.intensities
        measured = intensities.clone()
        if checkpoint is None:
            self.checkpointer.load(self.cfg.MODEL.WEIGHTS, checkpointables=[])
            intensities.copy_(measured)  # of this training's images
            if self.cfg.MODEL.WEIGHTS and self._trainer.pseudo_labeler:
                logger.info("The teacher starts as a copy of the student of MODEL.WEIGHTS")
        else:
            self.checkpointer.load(str(checkpoint.path), checked=True)
            if not intensities.equal(measured):
                logger.warning(
                    "Images of more than 8 bits: values %g to %g become 0 to 255 as before; measured now, "
                    "they would be %g to %g", *intensities.tolist(), *measured.tolist(),
                )  # fmt: skip
                self.data_loader.intensities = tuple(intensities.tolist())
            self.start_iter = checkpoint.iteration + 1
        self.data_loader.start_at(self.start_iter)

    def state_dict(self) -> dict:
        """Detectron2's, and the settings by which the run is known when it is continued."""
        settings = {"config": self.cfg.dump(), "processes": comm.get_world_size()}
        return super().state_dict() | settings

    def train(self) -> OrderedDict | None:
        """As Detectron2's. OUTPUT_DIR is written to from here on, not before.

        Raises:
            InputError: OUTPUT_DIR cannot be used; an image cannot be read, a loss is not finite, or
                the disk is full.
            Stopped: a signal ended the run after a checkpoint.
        """
        loop_logger = logging.getLogger("detectron2.engine.train_loop")
        loop_logger.addFilter(_is_no_input_error)
        try:
            if comm.is_main_process():
                self.folder.begin(self.cfg, self.start_iter)
            comm.synchronize()
            return super().train()
        finally:
            self.folder.end()
            loop_logger.removeFilter(_is_no_input_error)

    def build_hooks(self) -> list[HookBase]:
        """The method's hooks, then what keeps the run safe.

        Checkpoints come after all that changes the state, evaluation after checkpoints, metrics
        last.
        """
        cfg, loop = self.cfg, self._trainer
        method: list[HookBase] = loop.hooks()
        main = comm.is_main_process()
        self.stop = stop = StopOnSignal(self.checkpointer)
        method += [hooks.IterationTimer(), LearningRate()]
        if main:
            method += [DiskSpace(cfg, self.checkpointer), TrainingPictures(cfg, loop)]
        method.append(stop)
        evaluation = Evaluation(cfg.TEST.EVAL_PERIOD, self._evaluate, stop, self.folder)
        method.append(PredictionWeight(cfg, loop.segmentor, evaluation))
        if cfg.TEST.CALIBRATION != "none":
            method.append(Calibration(cfg, loop.segmentor, evaluation, lambda: self.selection))
        if main:
            method.append(Checkpoints(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        method.append(evaluation)
        self.selection = None
        if selects(cfg):
            shares = loop.segmentor.class_shares.cpu().clone()
            if not shares.any():
                shares = torch.tensor(class_frequencies(cfg))
            shares /= shares.sum()
            if main:
                alarms = Alarms(cfg, shares, model_metadata(cfg).stuff_classes)
                self.selection = Selection(
                    self.checkpointer,
                    lambda: PixelDraw(cfg, loop.segmentor, shares),
                    cfg.TEST.SELECTION.SCORE,
                    alarms,
                )
                method += [self.selection, alarms]
            if cfg.TEST.SELECTION.SOURCE_MODEL:
                from_main_process(lambda: self.selection.load_source_model(cfg))
        if main and (names := cfg.DATASETS.TEST):
            # Detectron2 names the data set where it evaluates on several.
            metric = "sem_seg/mIoU" if len(names) == 1 else f"{names[0]}/sem_seg/mIoU"
            method.append(BestModel(self.checkpointer, metric))
        if main:
            method.append(MetricsWriter(self.build_writers, evaluation))
        return method

    def _evaluate(self) -> dict:
        selection = {}
        if self.selection is not None:
            segmentor, iteration = self._trainer.segmentor, self.storage.iter
            selection["selection"] = self.selection.evaluate(segmentor, iteration)
        evaluators = [
            StoppableEvaluator(self.build_evaluator(self.cfg, name), self.stop)
            for name in self.cfg.DATASETS.TEST
        ]
        self._last_eval_results = self.test(self.cfg, self.model, evaluators)
        return selection | self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's and TRACKERS, for the iterations from the first on that this process trains."""
        folder = self.cfg.OUTPUT_DIR
        json_writer = JSONWriter(os.path.join(folder, "metrics.json"))
        json_writer._last_write = self.start_iter - 1
        return [
            CommonMetricPrinter(self.max_iter),
            json_writer,
            TensorboardXWriter(folder, purge_step=self.start_iter),
            *(TRACKERS[name](self.cfg, self.start_iter) for name in self.cfg.TRACKERS),
        ]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: PPPCSegmentor) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        evaluators: list[DatasetEvaluator] | None = None,
    ) -> OrderedDict:
        """As Detectron2's, with the range of values that the model was trained with."""
        return super().test(with_intensities(cfg, model), model, evaluators)

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
            file = Path(cfg.OUTPUT_DIR, "inference", f"uncertainty_{dataset_name}.json")
            evaluators.append(UncertaintyEvaluator(reader, file))
        return DatasetEvaluators(evaluators)
