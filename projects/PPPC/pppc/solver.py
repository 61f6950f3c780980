"""The optimiser, with the published parameter groups."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from .errors import InputError
from .segmentor import PPPCSegmentor

__all__ = ["build_optimizer"]


def build_optimizer(cfg: CfgNode, model: PPPCSegmentor) -> torch.optim.Optimizer:
    """AdamW over the student, or what Detectron2 builds.

    As published, the decoder and the embedding's mean learn ten times as fast as the backbone, the
    embedding's variance as fast; MiT's normalisation layers have no weight decay.

    Raises:
        InputError: SOLVER.OPTIMIZER is neither AdamW nor SGD.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        return build_detectron2_optimizer(cfg, model)
    if solver.OPTIMIZER != "AdamW":
        raise InputError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}: use AdamW or SGD")

    student = model.student
    groups = get_default_optimizer_params(
        student.backbone, solver.BASE_LR, weight_decay_norm=solver.WEIGHT_DECAY_NORM
    )
    groups += get_default_optimizer_params(
        student.sem_seg_head, solver.BASE_LR * solver.HEAD_LR_FACTOR
    )
    if student.probabilistic_head is not None:
        groups += get_default_optimizer_params(
            student.probabilistic_head,
            solver.BASE_LR,
            lr_factor_func=lambda name: (
                solver.VARIANCE_LR_FACTOR
                if name.startswith("log_variance.")
                else solver.HEAD_LR_FACTOR
            ),
        )
    optimizer = torch.optim.AdamW(
        groups, solver.BASE_LR, solver.BETAS, weight_decay=solver.WEIGHT_DECAY, fused=True
    )
    return maybe_add_gradient_clipping(cfg, optimizer)
