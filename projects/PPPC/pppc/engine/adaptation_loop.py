"""The training step of PPPC."""

from __future__ import annotations

import time
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.catalog import model_metadata
from ..data.sampling import PairedLoader
from ..errors import InputError
from ..method.ambiguity_crop import choose_crop, class_ambiguity_weights, standardized_ambiguity
from ..method.contrast import contrast_schedule
from ..method.labelled_pixels import resize_labels
from ..method.mixing import StrongAugmentation
from ..method.pixel_batch import PixelBatch
from ..method.teacher import (
    PseudoLabel,
    fuse_day_night,
    pixel_weights,
    pseudo_label,
    upsampled_probabilities,
)
from ..modeling.meta_arch import PPPCSegmentor
from .hooks import DACSMixing, PrototypeUpdate

__all__ = ["AdaptationLoop", "step_generator"]


def step_generator(seed: int, iteration: int, rank: int) -> torch.Generator:
    """The random numbers of one step: a function of its place, so that a resumed run repeats it.

    Dropout and DropPath draw from PyTorch's global generator, which is seeded alike.
    """
    of_step, of_dropout = np.random.SeedSequence((seed, iteration, rank)).generate_state(
        2, np.uint64
    )
    torch.manual_seed(int(of_dropout))
    return torch.Generator().manual_seed(int(of_step))


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
        scaled = self.segmentor.student.mixed_precision == torch.float16
        self.grad_scaler = torch.amp.GradScaler(self.segmentor.device.type, enabled=scaled)
        self.prototype_update = PrototypeUpdate(self.segmentor, cfg.PPPC.PROTOTYPES.INCLUDE_TARGET)

    def run_step(self) -> None:
        """One iteration of PPPC; without self-training, of source-only training.

        Raises:
            InputError: a loss of any process is not finite. The weights are still those of before.
        """
        start = time.perf_counter()
        source, target = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        files = source.files + (() if target is None else target.files)
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

        self._check_finite(losses, files)
        self._write_metrics(losses, data_time)
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _check_finite(self, losses: dict[str, Tensor], files: tuple[str, ...]) -> None:
        """See, in all processes alike, that training has not failed on a batch of ``files``."""
        wrong = [
            f"{name} is {value.item()}" for name, value in losses.items() if not value.isfinite()
        ]
        for found, images in comm.all_gather((wrong, files if wrong else ())):
            if found:
                raise InputError(
                    f"iteration {self.iter}: {', '.join(found)}, with the images {', '.join(images)}. "
                    "Look at them, and lower SOLVER.BASE_LR or, in float16, train in bfloat16 "
                    "(SOLVER.AMP.TYPE). Checkpoints are not affected"
                )

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
        return PixelBatch(target.image, label, weight, pseudo.confidence, files=target.files)

    def confident(self, target: PixelBatch) -> PixelBatch:
        """Pseudo-labelled images as contrast and prototypes use them (published: all pixels)."""
        threshold = self.cfg.PPPC.CONTRAST.TARGET_THRESHOLD
        return target.confident(threshold, self.segmentor.ignore_label)

    def ambiguity_crop(self, target: PixelBatch, generator: torch.Generator) -> PixelBatch:
        """Cut from each target image the most ambiguous of some random boxes (arXiv 2409.18543).

        Without prototypes nothing tells ambiguity: the box is random, and no label is needed.

        Raises:
            ValueError: the crop is larger than an image.
        """
        settings = self.cfg.PPPC.AMBIGUITY_CROP
        height, width = crop_size = tuple(self.cfg.INPUT.CROP.SIZE)
        prototypes = self.segmentor.prototypes
        if prototypes is None or settings.NUM_CANDIDATES == 1:
            labels, weights, candidates = target.image[:, 0], None, 1
        else:
            log_var, seen = prototypes.log_var, prototypes.seen
            # A class without a prototype has no ambiguity, and is not the most ambiguous one.
            ambiguity = (
                standardized_ambiguity(log_var, seen)
                if settings.STANDARDIZE
                else log_var.masked_fill(~seen[:, None], -torch.inf)
            )
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

        return PixelBatch(crop(target.image), day_image=crop(target.day_image), files=target.files)

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
