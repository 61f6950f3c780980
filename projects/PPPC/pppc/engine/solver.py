"""The optimizer, with the published parameter groups."""

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import (
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ..modeling.meta_arch import PPPCSegmentor


def build_optimizer(cfg: CfgNode, model: PPPCSegmentor) -> torch.optim.Optimizer:
    """AdamW or SGD over the student, with gradient clipping if the configuration asks for it.

    As published, the decoder and the embedding's mean learn ten times as fast as the backbone, the
    embedding's variance as fast; MiT's normalization layers have no weight decay.
    """
    solver, groups = cfg.SOLVER, _parameter_groups(cfg, model)
    if solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(
            groups, solver.BASE_LR, solver.MOMENTUM,
            weight_decay=solver.WEIGHT_DECAY, nesterov=solver.NESTEROV,
        )  # fmt: skip
    else:
        optimizer = torch.optim.AdamW(
            groups, solver.BASE_LR, solver.BETAS, weight_decay=solver.WEIGHT_DECAY, fused=True
        )
    return _with_gradient_clipping(cfg, optimizer)


def _parameter_groups(cfg: CfgNode, model: PPPCSegmentor) -> list[dict]:
    solver, student = cfg.SOLVER, model.student

    def groups(module: nn.Module, factor: float = 1.0, **options: object) -> list[dict]:
        return get_default_optimizer_params(
            module,
            solver.BASE_LR * factor,
            bias_lr_factor=solver.BIAS_LR_FACTOR,
            weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
            **options,
        )

    result = groups(
        student.backbone,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        lr_factor_func=getattr(student.backbone, "lr_factor", None),
    )
    result += groups(student.sem_seg_head, solver.HEAD_LR_FACTOR)
    if student.probabilistic_head is not None:
        embedding = groups(student.probabilistic_head.mean, solver.HEAD_LR_FACTOR)
        if student.probabilistic_head.log_variance is not None:
            embedding += groups(student.probabilistic_head.log_variance, solver.VARIANCE_LR_FACTOR)
        result += reduce_param_groups(embedding)
    return result


def _with_gradient_clipping(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
) -> torch.optim.Optimizer:
    """Detectron2's clipping of each parameter's gradient or, "full_model", of all as one vector."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED or clip.CLIP_TYPE != "full_model":
        return maybe_add_gradient_clipping(cfg, optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def before_step(*_: object) -> None:
        clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    optimizer.register_step_pre_hook(before_step)
    return optimizer
