"""Training: the step, the trainer and the hooks."""

from .adaptation_loop import AdaptationLoop
from .trainer import Trainer

__all__ = ["AdaptationLoop", "Trainer"]
