"""Evaluation of semantic segmentation."""

from .mean_iou import MeanIoUEvaluator, intersection_over_union
from .uncertainty import UncertaintyEvaluator

__all__ = ["MeanIoUEvaluator", "UncertaintyEvaluator", "intersection_over_union"]
