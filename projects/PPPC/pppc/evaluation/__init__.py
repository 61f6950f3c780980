"""Evaluation of semantic segmentation."""

from .mean_iou import MeanIoUEvaluator, intersection_over_union

__all__ = ["MeanIoUEvaluator", "intersection_over_union"]
