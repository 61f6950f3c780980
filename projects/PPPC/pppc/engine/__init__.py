"""Training: the step, the trainer and the hooks."""

from .trainer import AdaptationLoop, Trainer

__all__ = ["AdaptationLoop", "Trainer"]
