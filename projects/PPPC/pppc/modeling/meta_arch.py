"""The meta-architecture: student, teacher, class prototypes and the losses of one pass.

Shapes: N images, C classes, D embedding dimensions, H x W pixels, h x w positions of a feature
map.
"""

import copy
from typing import Self

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone, build_sem_seg_head
from detectron2.utils import comm
from torch import Tensor, nn

from ..errors import InputError
from ..method.class_weights import log_frequencies, log_frequency_class_weights
from ..method.contrast import PrototypeContrast
from ..method.feature_distance import FeatureDistance
from ..method.imagenet_prototypes import ImageNetPrototypes
from ..method.prototypes import GaussianPrototypes
from ..pixel_batch import PixelBatch
from ..processes import sum_over_processes
from .decode_heads import SemanticHead
from .error_probability import ErrorProbability
from .frozen_encoder import build_imagenet_prototypes
from .network import (
    NetworkOutput,
    SegmentationNetwork,
    mixed_precision_type,
)
from .probabilistic_head import build_probabilistic_head


def pixel_cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    ignore_label: int,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy averaged over all pixels, ignored ones included, as the paper's code does.

    Args:
        logits: ``(N, C, h, w)``, resized to the label bilinearly.
        label: ``(N, H, W)`` train IDs or ``ignore_label``.
        weight: ``(N, H, W)`` or None.
        ignore_label: the label of pixels that add nothing to the sum.
        class_weights: ``(C,)`` factors of the pixels of each class; the mean is not divided by
            them. None: 1.
    """
    logits = F.interpolate(
        logits.float(), size=label.shape[-2:], mode="bilinear", align_corners=False
    )
    loss = F.cross_entropy(
        logits, label, class_weights, ignore_index=ignore_label, reduction="none"
    )
    return (loss if weight is None else loss * weight).mean()


@META_ARCH_REGISTRY.register()
class PPPCSegmentor(nn.Module):
    """Probabilistic Prototypical Pixel Contrast (arXiv 2409.18543).

    In training mode ``forward`` is one pass of the student and returns its losses; the step that
    combines the passes is :meth:`pppc.engine.adaptation_loop.AdaptationLoop.run_step`. In evaluation mode
    it takes and returns Detectron2's lists of dictionaries.
    """

    @configurable
    def __init__(
        self,
        *,
        student: SegmentationNetwork,
        self_training: bool = True,
        teacher_batch_statistics: bool = True,
        prototypes: GaussianPrototypes | None = None,
        contrast: PrototypeContrast | None = None,
        imagenet_prototypes: ImageNetPrototypes | None = None,
        prediction_prototypes: bool = False,
        ignore_label: int = 255,
        class_weights: Tensor | None = None,
        test_class_weights: Tensor | None = None,
        test_class_weights_suffix: str = "",
        class_shares: Tensor | None = None,
        training_balance: float = 0.0,
        prediction_balance: float = 0.0,
        evaluate_teacher: bool = False,
        output_uncertainty: bool = False,
    ):
        """
        Args:
            student: the network that is trained.
            self_training: keep a teacher, the moving average of the student.
            teacher_batch_statistics: in training the teacher's BatchNorm uses the batch's
                statistics instead of running ones.
            prototypes: class prototypes; None where no contrast is used.
            contrast: the contrast of pixels and prototypes, or None.
            imagenet_prototypes: classes in a frozen encoder, to label target images by, or None.
            prediction_prototypes: predicted probabilities are multiplied by theirs.
            ignore_label: label of pixels without a class.
            class_weights: ``(C,)`` factors of the classes' pixels in the cross-entropy; None: 1.
            test_class_weights: ``(C,)`` factors of the predicted probabilities; None: 1.
            test_class_weights_suffix: they are of images whose file name ends so, or is not known.
            class_shares: ``(C,)`` of the source's pixels, saved with the weights; 0 or None: not known.
            training_balance: the power of them that multiplies probabilities in the cross-entropy.
            prediction_balance: the power of them that divides predicted probabilities.
            evaluate_teacher: predict with the teacher instead of the student.
            output_uncertainty: add what :meth:`predictions` tells of uncertainty.
        """
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False) if self_training else None
        self.teacher_batch_statistics = teacher_batch_statistics
        self.prototypes = prototypes
        self.contrast = contrast
        self.imagenet_prototypes = imagenet_prototypes
        self.prediction_prototypes = prediction_prototypes
        self.ignore_label = ignore_label
        # They come from the configuration, so they are in no checkpoint.
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("test_class_weights", test_class_weights, persistent=False)
        self.test_class_weights_suffix = test_class_weights_suffix
        shares = torch.zeros(0) if class_shares is None else class_shares
        self.register_buffer("class_shares", shares)
        self.training_balance = training_balance
        self.prediction_balance = prediction_balance
        # What values of images of more than 8 bits become 0 and 255: measured before training, kept
        # for tests and predictions. 0, 0: there are no such images.
        self.register_buffer("intensities", torch.zeros(2, dtype=torch.float64))
        self.evaluate_teacher = evaluate_teacher
        self.output_uncertainty = output_uncertainty
        self.error_probability = ErrorProbability()
        self.calibrated = False  # it was fitted, and is to be used

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        ignore_label = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        head = prototypes = contrast = None
        if cfg.PPPC.CONTRAST.ENABLED:
            head = build_probabilistic_head(cfg, shape)
            prototypes = GaussianPrototypes(
                cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
                cfg.MODEL.PROBABILISTIC_HEAD.DIM,
                update_rule=cfg.PPPC.PROTOTYPES.UPDATE_RULE,
                variance=cfg.PPPC.PROTOTYPES.VARIANCE,
                momentum=cfg.PPPC.PROTOTYPES.MOMENTUM,
                forgetting=cfg.PPPC.PROTOTYPES.FORGETTING,
                ignore_label=ignore_label,
                convention=cfg.PPPC.PROTOTYPES.CONVENTION,
            )
            contrast = PrototypeContrast(
                cfg.PPPC.CONTRAST.TEMPERATURE,
                cfg.PPPC.CONTRAST.KL_WEIGHT,
                ignore_label,
                cfg.PPPC.CONTRAST.SCORE,
                cfg.PPPC.CONTRAST.MAX_PIXELS_PER_CLASS,
                cfg.PPPC.CONTRAST.KL_REDUCTION,
                comm.get_world_size(),
                sum_over_processes,
            )
        # Detectron2's DeepLab heads would pool over images of the crop's size only.
        any_size = cfg.clone()
        any_size.defrost()
        any_size.INPUT.CROP.ENABLED = False
        decoder = build_sem_seg_head(any_size, shape)
        student = SegmentationNetwork(
            backbone,
            decoder,
            head,
            cfg.MODEL.PIXEL_MEAN,
            cfg.MODEL.PIXEL_STD,
            mixed_precision_type(cfg),
            max(
                getattr(backbone, "size_divisibility", 0),  # Detectron2's Swin has none
                1 if isinstance(decoder, SemanticHead) else max(s.stride for s in shape.values()),
            ),
            getattr(backbone, "min_size", 1),
        )

        def class_weights(spread: float) -> Tensor | None:
            frequencies = torch.tensor(cfg.PPPC.CLASS_WEIGHTS.FREQUENCIES)
            return log_frequency_class_weights(frequencies, spread) if spread else None

        return {
            "student": student,
            "self_training": cfg.PPPC.SELF_TRAINING.ENABLED,
            "teacher_batch_statistics": cfg.PPPC.TEACHER.BATCH_STATISTICS,
            "prototypes": prototypes,
            "contrast": contrast,
            "imagenet_prototypes": build_imagenet_prototypes(cfg, student),
            "prediction_prototypes": cfg.PPPC.IMAGENET_PROTOTYPES.PREDICTION,
            "ignore_label": ignore_label,
            "class_weights": class_weights(cfg.PPPC.CLASS_WEIGHTS.TRAIN_SPREAD),
            "test_class_weights": class_weights(cfg.PPPC.CLASS_WEIGHTS.TEST_SPREAD),
            "test_class_weights_suffix": cfg.PPPC.CLASS_WEIGHTS.TEST_SUFFIX,
            "class_shares": torch.tensor(
                cfg.PPPC.CLASS_WEIGHTS.FREQUENCIES or [0.0] * cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
            ),
            "training_balance": cfg.PPPC.CLASS_BALANCE.TRAINING,
            "prediction_balance": cfg.PPPC.CLASS_BALANCE.PREDICTION,
            "evaluate_teacher": cfg.TEST.EVALUATE_TEACHER,
            "output_uncertainty": cfg.TEST.UNCERTAINTY,
        }

    @property
    def device(self) -> torch.device:
        return self.student.pixel_mean.device

    def train(self, mode: bool = True) -> Self:
        """Switch modes; the teacher's Dropout and DropPath stay off in both."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
            for module in self.teacher.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(mode and self.teacher_batch_statistics)
        return self

    def forward(
        self,
        batch: PixelBatch | list[dict],
        *,
        segmentation: bool = True,
        contrast_scale: float | None = None,
        feature_distance: FeatureDistance | None = None,
    ) -> dict[str, Tensor] | list[dict]:
        """One pass of the student over labeled pixels, or inference in evaluation mode.

        Args:
            batch: in training a :class:`PixelBatch` with labels, or Detectron2's list of ``{"image":
                (3, H, W), "sem_seg": (H, W)}``, so that its own trainers can train the student on
                labeled images; in evaluation its list of ``{"image", "height", "width"}``.
            segmentation: return the cross-entropy.
            contrast_scale: weight of the contrast; None: leave it out.
            feature_distance: to a frozen encoder's features; None: leave it out.

        Returns:
            In training weighted losses: "loss_segmentation", "loss_contrast", "loss_kl",
            "loss_feature_distance". In evaluation what :meth:`inference` returns.
        """
        if not self.training:
            return self.inference(batch)
        if not isinstance(batch, PixelBatch):
            batch = PixelBatch.from_dicts(batch, self.device, self.ignore_label)
        output = self.student(
            batch.image,
            logits=segmentation,
            embedding=contrast_scale is not None,
            last_stages=int(feature_distance is not None),
        )
        losses = {}
        if segmentation:
            losses["loss_segmentation"] = pixel_cross_entropy(
                self.balanced(output.logits, -self.training_balance),
                batch.label,
                batch.weight,
                self.ignore_label,
                self.class_weights,
            )
        if contrast_scale is not None:
            contrast = self.contrast(
                output.mean,
                output.log_var,
                batch.label,
                self.prototypes.mean,
                self.prototypes.log_var,
                self.prototypes.seen,
            )
            losses.update({name: contrast_scale * loss for name, loss in contrast.items()})
        if feature_distance is not None:
            losses["loss_feature_distance"] = feature_distance(
                output.last_stages[0], batch.image, batch.label
            )
        return losses

    def predicting_output(self, image: Tensor, *, embedding: bool = False) -> NetworkOutput:
        """What predictions are made of, for images ``(N, 3, H, W)`` in [0, 255]."""
        network = self.teacher if self.evaluate_teacher else self.student
        output = network(image, embedding=embedding)
        if not self.predicts_with_imagenet_prototypes:
            return output
        weight = self.imagenet_prototypes.prediction_weight
        return output._replace(logits=self.with_imagenet_prototypes(output.logits, image, weight))

    def teacher_logits(self, image: Tensor) -> Tensor:
        """Scores ``(N, C, h, w)`` by which the teacher labels images, before any balance."""
        logits = self.teacher(image, embedding=False).logits
        return self.with_imagenet_prototypes(logits, image)

    def with_imagenet_prototypes(
        self, logits: Tensor, image: Tensor, weight: Tensor | float = 1.0
    ) -> Tensor:
        """Scores ``(N, C, h, w)`` of images, with those of the ImageNet prototypes, if there are any."""
        if self.imagenet_prototypes is None:
            return logits
        scores = weight * self.imagenet_prototypes.scores(image)
        return logits.float() + F.interpolate(
            scores, logits.shape[-2:], mode="bilinear", align_corners=False
        )

    def balanced(self, logits: Tensor, power: float) -> Tensor:
        """Scores ``(N, C, h, w)`` of probabilities divided by the source's class shares to a power."""
        if not power:
            return logits
        return logits - power * log_frequencies(self.class_shares).view(-1, 1, 1)

    def require_class_shares(self) -> None:
        """See that they are known.

        Raises:
            InputError: they are not.
        """
        if not self.class_shares.any():
            raise InputError(
                "PPPC.CLASS_BALANCE needs the class shares of the source, and the model has none: give "
                "them as PPPC.CLASS_WEIGHTS.FREQUENCIES, as pppc.data.class_frequencies(cfg) counts them, "
                "or set the keys of PPPC.CLASS_BALANCE to 0"
            )

    def scores(self, logits: Tensor, size: tuple[int, int], file_name: str = "") -> Tensor:
        """A network's ``(N, C, h, w)`` to what is predicted, ``(N, C, H, W)`` at ``size`` (H, W)."""
        scores = logits.float()
        weighted = not file_name or file_name.endswith(self.test_class_weights_suffix)
        if weighted and self.test_class_weights is not None:
            # Adding logarithms to the scores multiplies the probabilities.
            scores = scores + self.test_class_weights.log().view(-1, 1, 1)
        scores = self.balanced(scores, self.prediction_balance)
        return F.interpolate(scores, size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def uncertainty(self, output: NetworkOutput, size: tuple[int, int]) -> dict[str, Tensor]:
        """How uncertain the embedding is of each pixel, bilinearly resized to ``size``.

        Returns:
            ``(N, H, W)`` each. "uncertainty": the entropy of the classes' probabilities by the
            contrast's scores, in nats, so high where a pixel's Gaussian lies between prototypes;
            "log_variance": the mean over the dimensions of the pixel's log-variance.
        """
        num_images, dim, height, width = output.mean.shape
        mean, log_var = (
            embedding.float().permute(0, 2, 3, 1).reshape(-1, dim)
            for embedding in (output.mean, output.log_var)
        )
        prototypes = self.prototypes
        # Where no class was seen yet, all prototypes are equal, and every class as probable.
        seen = prototypes.seen | ~prototypes.seen.any()
        logits = self.contrast.class_logits(
            mean, log_var, prototypes.mean, prototypes.log_var, seen
        )
        probability = logits.softmax(1)
        entropy = -probability.xlogy(probability).sum(1)
        maps = torch.stack([entropy, log_var.mean(1)]).view(2, num_images, height, width)
        maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
        return {"uncertainty": maps[0], "log_variance": maps[1]}

    @property
    def predicts_with_imagenet_prototypes(self) -> bool:
        return self.prediction_prototypes and self.imagenet_prototypes is not None

    @property
    def gives_error_probability(self) -> bool:
        return self.output_uncertainty and self.calibrated

    @property
    def gives_embedding(self) -> bool:
        return self.output_uncertainty and self.prototypes is not None

    def predictions(
        self, output: NetworkOutput, size: tuple[int, int], file_name: str = ""
    ) -> dict[str, Tensor]:
        """What is predicted of images, from a network's output for them, at ``size`` (H, W).

        Returns:
            "sem_seg" ``(N, C, H, W)``, scores whose softmax are probabilities. With ``output_uncertainty``
            of a model with prototypes the maps of :meth:`uncertainty`; of a calibrated one
            "error_probability" ``(N, H, W)``, and the scores are divided by the temperature.
        """
        found = {"sem_seg": self.scores(output.logits, size, file_name)}
        if self.gives_embedding:
            found |= self.uncertainty(output, size)
        if self.gives_error_probability:
            found["error_probability"] = self.error_probability(found)
            found["sem_seg"] = found["sem_seg"] / self.error_probability.temperature
        return found

    @torch.no_grad()
    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """What :meth:`predictions` gives of each image, at the original size.

        That is "height" and "width"; with "at_network_size" it is the size in which the network gives scores.
        Images of one size go through the network together.
        """
        same_size: dict[torch.Size, list[int]] = {}
        for index, inputs in enumerate(batched_inputs):
            same_size.setdefault(inputs["image"].shape, []).append(index)
        results: list[dict] = [{} for _ in batched_inputs]
        for indices in same_size.values():
            images = torch.stack([batched_inputs[index]["image"] for index in indices])
            images = images.to(self.device).float()
            output = self.predicting_output(images, embedding=self.gives_embedding)
            for row, index in enumerate(indices):
                inputs = batched_inputs[index]
                height, width = images.shape[-2:]
                size = inputs.get("height", height), inputs.get("width", width)
                if inputs.get("at_network_size"):
                    size = tuple(output.logits.shape[-2:])
                one = NetworkOutput(*(m if m is None else m[row : row + 1] for m in output))
                found = self.predictions(one, size, inputs.get("file_name", ""))
                results[index] = {name: values[0] for name, values in found.items()}
        return results
