"""The training step of PPPC, and the trainer that Detectron2's users know around it."""

from __future__ import annotations

import time
import weakref
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ..ambiguity_crop import choose_crop, class_ambiguity_weights, standardized_ambiguity
from ..checkpoint import StrictCheckpointer
from ..contrast import contrast_schedule
from ..data import build_test_loader, build_train_loader, check_data, label_reader
from ..data.catalog import model_metadata
from ..data.sampling import PairedLoader
from ..evaluation import MeanIoUEvaluator, UncertaintyEvaluator
from ..labelled_pixels import resize_labels
from ..mixing import StrongAugmentation
from ..segmentor import PPPCSegmentor, mixed_precision_type
from ..solver import build_optimizer
from ..structures import PixelBatch
from ..teacher import (
    PseudoLabel,
    fuse_day_night,
    pixel_weights,
    pseudo_label,
    upsampled_probabilities,
)
from .hooks import DACSMixing, PrototypeUpdate, ResumableBestCheckpointer, TeacherUpdate
from .pictures import TrainingPictures

__all__ = ["AdaptationLoop", "Trainer", "step_generator"]


def step_generator(seed: int, iteration: int, rank: int) -> torch.Generator:
    """The random numbers of one step: a function of its place, so that a resumed run repeats it.

    Dropout and DropPath draw from PyTorch's global generator, which is seeded alike.
    """
    state = torch.Generator().manual_seed(hash((seed, iteration, rank)) % 2**63)
    torch.manual_seed(int(torch.randint(2**62, (), generator=state)))
    return state


class AdaptationLoop(SimpleTrainer):
    """The loop whose :meth:`run_step` is the method.

    Args:
        cfg: the configuration.
        model: the segmentor, in DistributedDataParallel where there are several processes.
        data_loader: endless pairs of source and target batches.
        optimizer: of the student.
        seed: of all random numbers of the steps.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        data_loader: PairedLoader,
        optimizer: torch.optim.Optimizer,
        seed: int,
    ):
        super().__init__(model, data_loader, optimizer)
        self.cfg = cfg
        self.seed = seed
        self.segmentor: PPPCSegmentor = (
            model.module if isinstance(model, DistributedDataParallel) else model
        )
        self.self_training = cfg.PPPC.SELF_TRAINING.ENABLED
        classes = model_metadata(cfg).stuff_classes
        self.static_classes = [
            classes.index(name) for name in cfg.PPPC.SELF_TRAINING.STATIC_CLASSES if name in classes
        ]
        augmentation = cfg.PPPC.STRONG_AUGMENTATION
        self.dacs_mixing = DACSMixing(
            StrongAugmentation(
                augmentation.JITTER_STRENGTH,
                augmentation.JITTER_PROBABILITY,
                augmentation.BLUR_PROBABILITY,
            )
        )
        # In float16 small gradients would be lost if the losses were not scaled.
        scaled = mixed_precision_type(cfg) == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.segmentor.device.type, enabled=scaled)
        self.prototype_update = PrototypeUpdate(
            self.segmentor, cfg.PPPC.PROTOTYPES.INCLUDE_TARGET
        )

    def run_step(self) -> None:
        """One iteration of PPPC; without self-training, of source-only training."""
        start = time.perf_counter()
        source, target = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        source = source.to(self.segmentor.device)
        generator = step_generator(self.seed, self.iter, comm.get_rank())
        self.dacs_mixing.start(generator)
        contrast = self.contrast_scale()
        self.batches = {"source": source}
        losses = {}
        self.optimizer.zero_grad()

        # Within one context the student's weights are cast to half precision once for all passes.
        with torch.autocast(self.segmentor.device.type, enabled=False):
            if self.self_training:
                target = self.ambiguity_crop(target.to(self.segmentor.device), generator)
                target = self.with_pseudo_label(target)
                if self.segmentor.prototypes is not None:
                    self.prototype_update(source, self.confident(target))
                mixed = self.dacs_mixing(source, target)
                self.batches |= {"target": target, "mixed": mixed}
                losses |= self.backward_pass("mixed", mixed)
                if contrast:
                    strong = self.dacs_mixing.strong(self.confident(target))
                    losses |= self.backward_pass("target", strong, contrast, segmentation=False)
            strong = self.dacs_mixing.strong(source)
            losses |= self.backward_pass("source", strong, contrast, last=True)

        self._write_metrics(losses, data_time)
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict:
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        if "grad_scaler" in state:  # not in checkpoints from before there was one
            self.grad_scaler.load_state_dict(state["grad_scaler"])

    def contrast_scale(self) -> float | None:
        """Weight of the contrast at this iteration; None: leave it out."""
        if self.segmentor.contrast is None:
            return None
        contrast = self.cfg.PPPC.CONTRAST
        scale = contrast.LOSS_WEIGHT * contrast_schedule(
            self.iter, self.cfg.SOLVER.MAX_ITER, contrast.START_ITER, contrast.RAMP_MULTIPLIER
        )
        get_event_storage().put_scalar("contrast/scale", scale, smoothing_hint=False)
        # Every parameter must take part in the pass that averages gradients over processes.
        return scale if scale > 0 or comm.get_world_size() > 1 else None

    @torch.no_grad()
    def teacher_pseudo_label(self, target: PixelBatch, scale: float = 1.0) -> PseudoLabel:
        """The teacher's labels of target images, with the help of their day images if they come.

        Args:
            target: the images.
            scale: to which they are resized, and the labels with them.
        """

        def probabilities(image: Tensor) -> Tensor:
            if scale != 1:
                image = F.interpolate(image, scale_factor=scale, mode="bilinear", antialias=True)
            logits = self.segmentor.teacher(image, embedding=False).logits
            return upsampled_probabilities(logits, image.shape[-2:])

        probability = probabilities(target.image)
        if target.day_image is not None:
            probability = fuse_day_night(
                probabilities(target.day_image),
                probability,
                self.static_classes,
                self.segmentor.class_weights,
            )
        return pseudo_label(probability, self.cfg.PPPC.SELF_TRAINING.THRESHOLD)

    def with_pseudo_label(self, target: PixelBatch) -> PixelBatch:
        """Target images with the teacher's labels and their weights; weightless pixels ignored."""
        settings = self.cfg.PPPC.SELF_TRAINING
        pseudo = self.teacher_pseudo_label(target)
        weight = pixel_weights(pseudo, settings.IGNORE_TOP, settings.IGNORE_BOTTOM)
        label = pseudo.label.masked_fill(weight == 0, self.segmentor.ignore_label)
        get_event_storage().put_scalar("pseudo_label/confident_share", pseudo.weight.item())
        return PixelBatch(target.image, label, weight, pseudo.confidence)

    def confident(self, target: PixelBatch) -> PixelBatch:
        """Pseudo-labelled images as contrast and prototypes use them (published: all pixels)."""
        threshold = self.cfg.PPPC.CONTRAST.TARGET_THRESHOLD
        return target.confident(threshold, self.segmentor.ignore_label)

    def ambiguity_crop(self, target: PixelBatch, generator: torch.Generator) -> PixelBatch:
        """Cut from each target image the most ambiguous of some random boxes (arXiv 2409.18543).

        Without prototypes nothing tells ambiguity: the box is random, and no label is needed.
        """
        settings = self.cfg.PPPC.AMBIGUITY_CROP
        height, width = crop_size = tuple(self.cfg.INPUT.CROP.SIZE)
        prototypes = self.segmentor.prototypes
        if prototypes is None or settings.NUM_CANDIDATES == 1:
            labels, weights, candidates = target.image[:, 0], None, 1
        else:
            ambiguity = prototypes.log_var
            if settings.STANDARDIZE:
                ambiguity = standardized_ambiguity(ambiguity, prototypes.seen)
            labels = self.teacher_pseudo_label(target, settings.SCALE).label
            labels = resize_labels(labels, target.image.shape[-2:])
            weights = class_ambiguity_weights(ambiguity, settings.TEMPERATURE, settings.TOP_K)
            candidates = settings.NUM_CANDIDATES
        corners = [
            choose_crop(label, weights, crop_size, candidates, generator) for label in labels
        ]

        def crop(images: Tensor | None) -> Tensor | None:
            if images is None:
                return None
            boxes = zip(images, corners)
            return torch.stack([i[:, y : y + height, x : x + width] for i, (y, x) in boxes])

        return PixelBatch(crop(target.image), day_image=crop(target.day_image))

    def backward_pass(
        self,
        name: str,
        batch: PixelBatch,
        contrast_scale: float | None = None,
        segmentation: bool = True,
        last: bool = False,
    ) -> dict[str, Tensor]:
        """One pass of the student, forward and backward, so that only its graph is alive.

        Args:
            name: of the pass; ends the names of the losses.
            batch: strongly augmented images with labels.
            contrast_scale: weight of the contrast; None: leave it out.
            segmentation: whether to include the cross-entropy.
            last: the pass after which the processes average their gradients.

        Returns:
            the weighted losses, detached.
        """
        wait = comm.get_world_size() > 1 and not last
        with self.model.no_sync() if wait else nullcontext():
            losses = self.model(batch, segmentation=segmentation, contrast_scale=contrast_scale)
            self.grad_scaler.scale(sum(losses.values())).backward()
        return {f"{loss}_{name}": value.detach() for loss, value in losses.items()}


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
        KeyError, FileNotFoundError, ValueError: from :func:`pppc.data.check_data`, before the
            model is built.
    """

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)  # DefaultTrainer's own builds another loop
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
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
        return [ResumableBestCheckpointer(self.cfg.TEST.EVAL_PERIOD, self.checkpointer, metric)]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: PPPCSegmentor) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
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
