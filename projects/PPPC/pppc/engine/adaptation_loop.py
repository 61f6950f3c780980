"""The training step of PPPC."""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase, SimpleTrainer, TrainerBase
from detectron2.engine.hooks import CallbackHook
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config.scaling import (
    contrast_start,
    crop_temperature,
    crop_top_k,
    mask_block_size,
    mix,
    self_training_start,
)
from ..data.catalog import model_metadata
from ..data.sampling import PairedLoader
from ..method.ambiguity_crop import AmbiguityCrop
from ..method.contrast import contrast_schedule
from ..method.feature_distance import FeatureDistance
from ..method.masking import Masking
from ..method.mixing import StrongAugmentation, denormalized
from ..method.teacher import PseudoLabeler
from ..modeling.meta_arch import PPPCSegmentor
from ..pixel_batch import PixelBatch
from ..processes import sum_over_processes
from .hooks import (
    BatchStatisticsAverage,
    DACSMixing,
    PrototypeUpdate,
    StepGenerator,
    TeacherUpdate,
)
from .imagenet_encoder import begin_imagenet_prototypes, feature_distance
from .step_metrics import write_metrics


class StepRecord(NamedTuple):
    """What the last step was trained on, for pictures."""

    source: PixelBatch
    target: PixelBatch | None  # the crop, with pseudo-labels
    mixed: PixelBatch | None
    masked: PixelBatch | None


class AdaptationLoop(SimpleTrainer):
    """The loop whose :meth:`run_step` is the method.

    The hooks of :meth:`hooks` must be registered with the trainer that runs it, which may be the
    loop itself. docs/step.md has an example with a network and a loader of one's own.

    Args:
        model: the segmentor, in DistributedDataParallel where there are several processes.
        data_loader: endless pairs of source and target batches.
        optimizer: of the student.
        seed: of all random numbers of the steps.
        augmentation: the strong augmentation.
        pseudo_labeler: labels the target; None: train on the source alone.
        mix: what of the source is pasted onto the target, see :class:`pppc.engine.hooks.DACSMixing`.
        pseudo_label_balance: the power of the source's class shares that divides the teacher's
            probabilities.
        self_training_start: the first iteration that trains on the target, too.
        ambiguity_crop: chooses what is cut from the target.
        crop_scale: to which target images are resized for that choice; 1: as they are.
        reuse_labels: pseudo-labels are cut from what the teacher said for that choice.
        contrast_weight: the weight of the contrast at an iteration.
        contrast_threshold: the probability from which on a pseudo-label takes part in the contrast
            and the prototypes (published: all do).
        prototypes_include_target: see :class:`pppc.engine.hooks.PrototypeUpdate`.
        teacher_momentum: see :class:`pppc.engine.hooks.TeacherUpdate`.
        denormalized_source: where colors change, prototypes and mixes see the source image as
            :func:`pppc.method.mixing.denormalized` gives it.
        feature_distance: of the source's features to a frozen encoder's; None: leave it out.
        masking: what is hidden of the target in a pass more; None: there is none.
        begin: called before the first iteration, but not where a training goes on.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[tuple[PixelBatch, PixelBatch | None]],
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        augmentation: StrongAugmentation,
        pseudo_labeler: PseudoLabeler | None,
        mix: str = "class",
        pseudo_label_balance: float = 0.0,
        self_training_start: int = 0,
        ambiguity_crop: AmbiguityCrop,
        crop_scale: float = 1.0,
        reuse_labels: bool = False,
        contrast_weight: Callable[[int], float] = lambda iteration: 1.0,
        contrast_threshold: float = 0.0,
        prototypes_include_target: bool = False,
        teacher_momentum: float = 0.999,
        denormalized_source: bool = False,
        feature_distance: FeatureDistance | None = None,
        masking: Masking | None = None,
        begin: Callable[[], None] = lambda: None,
    ):
        super().__init__(model, data_loader, optimizer)
        self.segmentor: PPPCSegmentor = (
            model.module if isinstance(model, DistributedDataParallel) else model
        )
        self.pseudo_labeler = pseudo_labeler
        self.pseudo_label_balance = pseudo_label_balance
        self.self_training_start = self_training_start
        self.ambiguity_crop = ambiguity_crop
        self.crop_scale = crop_scale
        self.reuse_labels = reuse_labels
        self.contrast_weight = contrast_weight
        self.contrast_threshold = contrast_threshold
        self.denormalized_source = denormalized_source
        self.feature_distance = feature_distance
        self.masking = masking
        self.begin = begin
        self.random = StepGenerator(seed)
        self.dacs_mixing = DACSMixing(augmentation, self.random, mix)
        self.prototype_update = PrototypeUpdate(self.segmentor, prototypes_include_target)
        self.teacher_momentum = teacher_momentum
        # In float16 small gradients would be lost if the losses were not scaled.
        scaled = self.segmentor.student.mixed_precision == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.segmentor.device.type, enabled=scaled)
        if self.segmentor.teacher is not None:
            # No gradients are computed of it; autocast keeps half-precision weights for a step's other passes
            # only of parameters that could have some.
            self.segmentor.teacher.requires_grad_(True)
        self.record: StepRecord | None = None
        self.scalars: dict[str, Tensor] = {}  # of the step, on its device, beside the losses

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        data_loader: Iterable[tuple[PixelBatch, PixelBatch | None]],
        optimizer: torch.optim.Optimizer,
    ) -> Self:
        """The loop that a configuration describes.

        Raises:
            InputError: the model lacks the class shares that the configuration needs.
        """
        crop, contrast, masked = cfg.PPPC.AMBIGUITY_CROP, cfg.PPPC.CONTRAST, cfg.PPPC.MASKING
        colors, labels = cfg.PPPC.STRONG_AUGMENTATION, cfg.PPPC.SELF_TRAINING
        segmentor = model.module if isinstance(model, DistributedDataParallel) else model
        if isinstance(data_loader, PairedLoader):
            segmentor.intensities.copy_(torch.tensor(data_loader.intensities))
        if any(cfg.PPPC.CLASS_BALANCE.values()):
            segmentor.require_class_shares()
        if cfg.MODEL.COMPILE:
            for network in filter(None, (segmentor.student, segmentor.teacher)):
                network.compile(mode=cfg.MODEL.COMPILE, dynamic=False)  # sizes are few
        classes = model_metadata(cfg).stuff_classes
        pseudo_labeler = PseudoLabeler(
            labels.THRESHOLD,
            labels.IGNORE_TOP,
            labels.IGNORE_BOTTOM,
            segmentor.ignore_label,
            [classes.index(name) for name in labels.STATIC_CLASSES if name in classes],
            segmentor.class_weights,
            sum_over_processes,
        )
        augmentation = StrongAugmentation(
            colors.JITTER_STRENGTH,
            colors.JITTER_PROBABILITY,
            colors.BLUR_PROBABILITY,
            cfg.INPUT.FORMAT,
        )
        masking = Masking(augmentation, mask_block_size(cfg), masked.RATIO, masked.LOSS_WEIGHT)
        start = contrast_start(cfg)

        def contrast_weight(iteration: int) -> float:
            return contrast.LOSS_WEIGHT * contrast_schedule(
                iteration, cfg.SOLVER.MAX_ITER, start, contrast.RAMP_MULTIPLIER
            )

        return cls(
            model,
            data_loader,
            optimizer,
            seed=cfg.SEED,
            augmentation=augmentation,
            pseudo_labeler=pseudo_labeler if labels.ENABLED else None,
            mix=mix(cfg),
            pseudo_label_balance=cfg.PPPC.CLASS_BALANCE.PSEUDO_LABELS,
            self_training_start=self_training_start(cfg),
            ambiguity_crop=AmbiguityCrop(
                tuple(cfg.INPUT.CROP.SIZE),
                crop.NUM_CANDIDATES,
                crop_temperature(cfg),
                crop_top_k(cfg),
                crop.CRITERION,
            ),
            crop_scale=crop.SCALE,
            reuse_labels=crop.REUSE_LABELS,
            contrast_weight=contrast_weight,
            contrast_threshold=contrast.TARGET_THRESHOLD,
            prototypes_include_target=cfg.PPPC.PROTOTYPES.INCLUDE_TARGET,
            teacher_momentum=cfg.PPPC.TEACHER.MOMENTUM,
            denormalized_source=colors.DENORMALIZED_SOURCE,
            feature_distance=feature_distance(cfg, segmentor),
            masking=masking if masked.LOSS_WEIGHT else None,
            begin=partial(begin_imagenet_prototypes, cfg, segmentor),
        )

    def hooks(self) -> list[HookBase]:
        """All hooks that the step needs, in their order."""

        def begin(trainer: TrainerBase) -> None:
            if trainer.start_iter == 0:
                self.begin()

        hooks: list[HookBase] = [
            CallbackHook(before_train=begin),
            self.random,
            self.dacs_mixing,
        ]
        if comm.get_world_size() > 1:
            hooks.append(BatchStatisticsAverage(self.segmentor))
        if self.segmentor.teacher is not None:
            hooks.append(TeacherUpdate(self.segmentor, self.teacher_momentum))
        return hooks

    def run_step(self) -> None:
        """One iteration of PPPC; without pseudo-labels, of source-only training.

        It waits for the device twice: where the crop is chosen, and at the end for the losses. Of several
        processes on GPUs the classes to mix are a third time.

        Raises:
            InputError: a loss of any process is not finite. The weights are still those of before.
        """
        start = time.perf_counter()
        source, target = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        files = source.files + (() if target is None else target.files)
        adapts = self.pseudo_labeler is not None and self.iter >= self.self_training_start
        # While labels are on the CPU.
        classes = self.dacs_mixing.classes(source) if adapts else None
        source, mixed, masked = source.to(self.segmentor.device), None, None
        contrast = self.contrast_scale()
        if self.segmentor.imagenet_prototypes is not None:
            self.segmentor.imagenet_prototypes.update(source.image, source.label)
        losses = {}
        self.scalars.clear()
        self.optimizer.zero_grad()

        # Within one context the student's weights are cast to half precision once for all passes.
        with torch.autocast(self.segmentor.device.type, enabled=False):
            strong = self.dacs_mixing.strong
            of_source = {"contrast_scale": contrast, "feature_distance": self.feature_distance}
            passes: list[tuple[str, PixelBatch, dict]] = [("source", strong(source), of_source)]
            target = target if adapts else None
            if target is not None:
                target = self.crop_target(target.to(self.segmentor.device))
                target = self.label_target(target)
                confident = target.confident(self.contrast_threshold, self.segmentor.ignore_label)
                weak_source = self.weak(source)
                if self.segmentor.prototypes is not None:
                    self.prototype_update(weak_source, confident)
                if contrast:
                    of_target = {"contrast_scale": contrast, "segmentation": False}
                    passes.append(("target", strong(confident), of_target))
                mixed = self.dacs_mixing(weak_source, target, classes)
                passes.append(("mixed", mixed, {}))
                if self.masking is not None:
                    masked = self.masked(target)
                    passes.append(("masked", masked, {}))
            if comm.get_world_size() > 1:
                # The last pass averages gradients: it has to be the one with all parameters.
                passes.reverse()
            for number, (name, batch, options) in enumerate(passes, start=1):
                losses |= self.backward_pass(name, batch, last=number == len(passes), **options)

        self.record = StepRecord(source, target, mixed, masked)
        if self.segmentor.prototypes is not None:
            self.scalars["prototypes/classes_seen"] = self.segmentor.prototypes.seen.sum()
        write_metrics(losses, self.scalars, data_time, files)
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def weak(self, source: PixelBatch) -> PixelBatch:
        """The weakly augmented source as prototypes and mixes see it."""
        if not (self.denormalized_source and self.dacs_mixing.gates.jitter):
            return source
        student = self.segmentor.student
        image = denormalized(source.image, student.pixel_mean, student.pixel_std)
        return replace(source, image=image)

    @torch.no_grad()
    def teacher_scores(self, image: Tensor) -> Tensor:
        """The class scores ``(N, C, h, w)`` of images ``(N, 3, H, W)`` by which the target is labeled.

        They are the teacher's, balanced, with those of the ImageNet prototypes added.
        """
        logits = self.segmentor.teacher_logits(image)
        return self.segmentor.balanced(logits, self.pseudo_label_balance)

    def crop_target(self, target: PixelBatch) -> PixelBatch:
        """The part of each target image that is trained on."""
        found: list[Tensor] = []

        def probabilities() -> Tensor:
            found.append(
                self.pseudo_labeler.probabilities(
                    self.teacher_scores, target.image, target.day_image, self.crop_scale
                )
            )
            return found[0]

        corners = self.ambiguity_crop(
            tuple(target.image.shape[-2:]),
            len(target),
            self.segmentor.prototypes,
            probabilities,
            self.random.generator,
        )
        for name, value in self.ambiguity_crop.statistics.items():
            if isinstance(value, Tensor):
                self.scalars[f"crop/{name}"] = value
            else:
                get_event_storage().put_scalar(f"crop/{name}", value, smoothing_hint=False)
        known = replace(target, probabilities=found[0]) if found and self.reuse_labels else target
        return known.crop(corners, self.ambiguity_crop.size)

    def label_target(self, target: PixelBatch) -> PixelBatch:
        """Target images with the teacher's labels and their weights."""
        pseudo, weight = self.pseudo_labeler(
            self.teacher_scores, target.image, target.day_image, target.probabilities
        )
        self.scalars["pseudo_label/confident_share"] = pseudo.confident_share
        return PixelBatch(target.image, pseudo.label, weight, pseudo.confidence, files=target.files)

    def masked(self, target: PixelBatch) -> PixelBatch:
        """Labeled target images, augmented and with blocks hidden, which become 0 when normalized."""
        mean = self.segmentor.student.pixel_mean
        image = self.masking(target.image, mean, self.random.generator)
        return PixelBatch(image, target.label, self.masking.loss_weight * target.weight)

    def contrast_scale(self) -> float | None:
        """Weight of the contrast at this iteration; None: leave it out."""
        if self.segmentor.contrast is None:
            return None
        scale = self.contrast_weight(self.iter)
        get_event_storage().put_scalar("contrast/scale", scale, smoothing_hint=False)
        # Every parameter must take part in the pass that averages gradients over processes.
        return scale if scale > 0 or comm.get_world_size() > 1 else None

    def backward_pass(
        self, name: str, batch: PixelBatch, *, last: bool = False, **options: Any
    ) -> dict[str, Tensor]:
        """One pass of the student, forward and backward, so that only its graph is alive.

        Args:
            name: of the pass; ends the names of the losses.
            batch: strongly augmented images with labels.
            last: the pass after which the processes average their gradients.
            options: which losses, see :meth:`pppc.modeling.meta_arch.PPPCSegmentor.forward`.
        """
        wait = comm.get_world_size() > 1 and not last
        with self.model.no_sync() if wait else nullcontext():
            losses = self.model(batch, **options)
            self.grad_scaler.scale(sum(losses.values())).backward()
        return {f"{loss}_{name}": value.detach() for loss, value in losses.items()}

    def state_dict(self) -> dict:
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """What was learnt; the configuration alone decides rates, decay and the like."""
        options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        super().load_state_dict(state)
        for group, configured in zip(self.optimizer.param_groups, options):
            group.update(configured)
        if state.get("grad_scaler"):  # empty or absent where nothing was scaled
            learnt = {key: state["grad_scaler"][key] for key in ("scale", "_growth_tracker")}
            self.grad_scaler.load_state_dict(self.grad_scaler.state_dict() | learnt)
