"""The parts of the method that own state or schedule, as Detectron2 hooks.

Detectron2's hooks never see the batch. What a part needs of it, the training step hands over by
calling :class:`PrototypeUpdate` and :class:`DACSMixing`; see
:meth:`pppc.engine.adaptation_loop.AdaptationLoop.run_step`.
"""

import numpy as np
import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..method.mixing import (
    StrongAugmentation,
    box_mix_mask,
    class_mix,
    class_mix_mask,
    present_labels,
)
from ..method.teacher import teacher_momentum, update_teacher
from ..modeling.meta_arch import PPPCSegmentor
from ..pixel_batch import PixelBatch
from ..processes import sum_over_processes


class StepGenerator(HookBase):
    """Before each step: its random numbers, a function of its place, so that a resumed run has them.

    ``generator`` is on the CPU. Dropout and DropPath draw from PyTorch's global generator, which is seeded
    alike.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self) -> None:
        place = (self.seed, self.trainer.iter, comm.get_rank())
        of_step, of_dropout = np.random.SeedSequence(place).generate_state(2, np.uint64)
        torch.manual_seed(int(of_dropout))
        self.generator = torch.Generator().manual_seed(int(of_step))


class TeacherUpdate(HookBase):
    """After each step: teacher <- m teacher + (1 - m) student; at the start of a run a copy.

    So the teacher that an iteration labels with has all students before it, as published, and a
    checkpoint or an evaluation after it has this one, too. ``momentum`` is m after the first iterations.
    """

    def __init__(self, segmentor: PPPCSegmentor, momentum: float = 0.999):
        self.segmentor = segmentor
        self.momentum = momentum

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            self._update(0)

    def after_step(self) -> None:
        self._update(self.trainer.iter + 1)

    def _update(self, iteration: int) -> None:
        """The update with which ``iteration`` begins."""
        momentum = teacher_momentum(iteration, self.momentum)
        update_teacher(self.segmentor.teacher, self.segmentor.student, momentum)


class BatchStatisticsAverage(HookBase):
    """After each step: BatchNorm's running statistics are their mean over the processes.

    Each process sees its own images. Without this it would evaluate with its own statistics, and
    the checkpoint hold the main process's. SyncBatchNorm's are equal in all of them already.
    """

    def __init__(self, segmentor: PPPCSegmentor):
        self.statistics = [
            statistic
            for network in (segmentor.student, segmentor.teacher)
            if network is not None
            for module in network.modules()
            if isinstance(module, _BatchNorm)
            and not isinstance(module, nn.SyncBatchNorm)
            and module.track_running_stats
            for statistic in (module.running_mean, module.running_var)
        ]

    def after_step(self) -> None:
        if not self.statistics:
            return
        together = torch.cat(self.statistics)
        dist.all_reduce(together)
        together /= comm.get_world_size()
        parts = together.split([len(statistic) for statistic in self.statistics])
        for statistic, mean in zip(self.statistics, parts):
            statistic.copy_(mean)


class PrototypeUpdate:
    """Update the class prototypes with the teacher's embedding of labeled pixels.

    ``include_target``: use the target's pseudo-labeled pixels too (published: the source's alone).
    """

    def __init__(self, segmentor: PPPCSegmentor, include_target: bool):
        self.segmentor = segmentor
        self.include_target = include_target

    @torch.no_grad()
    def __call__(self, source: PixelBatch, target: PixelBatch) -> None:
        """
        Args:
            source: weakly augmented, with labels.
            target: weakly augmented, with pseudo-labels; of the source's crop size.
        """
        batches = [source, target] if self.include_target else [source]
        # One pass each, since the teacher's BatchNorm uses the batch's statistics.
        outputs = [
            self.segmentor.teacher(batch.image, logits=False, embedding=True) for batch in batches
        ]
        self.segmentor.prototypes.update(
            torch.cat([output.mean for output in outputs]),
            torch.cat([output.log_var for output in outputs]),
            torch.cat([batch.label for batch in batches]),
            sum_over_processes,
        )


class DACSMixing(HookBase):
    """Strong augmentation, and mixes of source and target (DACS, arXiv 2007.08702).

    Whether the augmentation jitters or blurs is drawn before each step, for all its passes; by how much,
    once per image. ``mix`` is what is pasted, a name in ``pppc.method.mixing.MIXES``.
    """

    def __init__(self, augmentation: StrongAugmentation, random: StepGenerator, mix: str = "class"):
        self.mix = mix
        self.augmentation = augmentation
        self.random = random

    def before_step(self) -> None:
        self.gates = self.augmentation.draw_gates(self.random.generator)

    def classes(self, source: PixelBatch) -> Tensor | None:
        """What classes are chosen from; None: none are. Of labels on the CPU it waits for no device."""
        return present_labels(source.label, sum_over_processes) if self.mix == "class" else None

    def strong(self, batch: PixelBatch) -> PixelBatch:
        """The batch with strongly augmented images."""
        image = self.augmentation(batch.image, self.gates, self.random.generator)
        return PixelBatch(image, batch.label, batch.weight)

    def __call__(
        self, source: PixelBatch, target: PixelBatch, classes: Tensor | None = None
    ) -> PixelBatch:
        """Paste half of the source's classes, or a box of it, onto each target image; augment strongly.

        Args:
            source: weakly augmented, labeled. With fewer images than the target they repeat.
            target: weakly augmented, with pseudo-labels and pixel weights.
            classes: what :meth:`classes` gave for the source.

        Returns:
            as many images as the target has; the source's pixels have weight 1.
        """
        index = torch.arange(len(target), device=source.image.device) % len(source)
        if self.mix == "class":
            mask = class_mix_mask(source.label, self.random.generator, classes)[index]
        else:
            mask = box_mix_mask(target.label, self.random.generator)
        return self.strong(
            PixelBatch(
                class_mix(source.image[index], target.image, mask),
                class_mix(source.label[index], target.label, mask),
                class_mix(torch.ones_like(target.weight), target.weight, mask),
            )
        )
