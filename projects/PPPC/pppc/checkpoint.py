"""A checkpointer that takes other projects' files, and fails where Detectron2's warns and goes on."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.common.checkpoint import _IncompatibleKeys
from torch import nn

from .errors import InputError
from .files import whole_file, write_atomically
from .weights import Translation, from_other_layout, read_weights
from .weights.handles import local_path

__all__ = ["StrictCheckpointer", "describe", "trained_model"]

logger = logging.getLogger(__name__)

# What one method has and another has not: a source-only checkpoint may start an adaptation, and an
# adapted one may be evaluated as a plain segmentation network. The teacher is copied from the
# student, prototypes and probabilistic head are learnt anew.
METHOD_PARTS = ("teacher.", "prototypes.", "student.probabilistic_head.")
ALMOST_FULL = 2**20  # bytes left on a disk that has refused a checkpoint


class StrictCheckpointer(DetectionCheckpointer):
    """Loads a checkpoint whole, or says what does not fit.

    Args:
        model, save_dir, checkpointables: as Detectron2's.
        trained: the weights are to be used as they are, so that what the model predicts with may
            not be missing.
        max_to_keep: how many periodic checkpoints stay, the last ones; 0: all. The best and the
            final one always do.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        trained: bool = False,
        max_to_keep: int = 0,
        **checkpointables: object,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.trained = trained
        self.max_to_keep = max_to_keep

    def save(self, name: str, **extra: object) -> None:
        """As Detectron2's; an older file of this name stays until the new one is whole.

        Raises:
            InputError: the disk is full.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        try:
            with whole_file(path) as unfinished, open(unfinished, "wb") as file:
                torch.save(self.content(**extra), file)
        except (OSError, RuntimeError) as error:
            if shutil.disk_usage(path.parent).free > ALMOST_FULL:
                raise
            raise InputError(
                f"{path} cannot be written, the disk is full ({error}). The checkpoints before it "
                "are whole: free space, then continue with --resume"
            ) from error
        self.tag_last_checkpoint(path.name)
        self._remove_old()

    def content(self, **extra: object) -> dict[str, object]:
        """What a checkpoint holds."""
        parts = {name: part.state_dict() for name, part in self.checkpointables.items()}
        return {"model": self.model.state_dict(), **parts, **extra}

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(path, last_filename_basename.encode())

    def _remove_old(self) -> None:
        """Delete periodic checkpoints but for the last ``max_to_keep``."""
        periodic = sorted(Path(self.save_dir).glob("model_" + "[0-9]" * 7 + ".pth"))
        for path in periodic[: -self.max_to_keep] if self.max_to_keep else []:
            path.unlink()

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's, of files of any layout that :mod:`pppc.weights` knows.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be fetched.
            ValueError: the checkpoint is damaged, unsafe, or of another architecture; the message
                names the file.
        """
        self._path = path
        # Continuing a run, its trainer is loaded too: then nothing may be missing.
        self._whole = checkpointables is None and bool(self.checkpointables)
        self._missing: dict[str, str] = {}
        return super().load(local_path(path) if path else path, checkpointables)

    def _load_file(self, filename: str) -> dict:
        content = read_weights(filename)
        model = getattr(self.model, "module", self.model)
        student = [
            key.removeprefix("student.") for key in model.state_dict() if key.startswith("student.")
        ]
        translation = from_other_layout(content["model"], student, self._path)
        if translation is None:
            return content
        logger.info(describe(translation))
        self._missing = translation.missing
        untrained = [key for key in self._missing if key.startswith("student.sem_seg_head.")]
        if self.trained and untrained:
            raise ValueError(
                f"{self._path} holds an encoder alone, which predicts nothing yet: set MODEL.WEIGHTS "
                "to a trained model"
            )
        return {"model": translation.state}

    def _check_trained_parts(self, missing: list[str]) -> None:
        """See that no part is missing that the configuration lets the model predict with."""
        model = self.model
        network = "teacher." if model.evaluate_teacher else "student."
        for part, name, key, used in (
            ("teacher.", "teacher", "TEST.EVALUATE_TEACHER", model.evaluate_teacher),
            (network + "probabilistic_head.", "embedding", "TEST.UNCERTAINTY", model.output_uncertainty),
            ("prototypes.", "prototypes", "TEST.UNCERTAINTY", model.output_uncertainty),
        ):
            if used and any(tensor.startswith(part) for tensor in missing):
                raise ValueError(f"{self._path} holds no {name}: set {key} False")

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        if self.trained:
            self._check_trained_parts(incompatible.missing_keys)
        problems = [
            f"{key} has shape {theirs}, the model's has {ours}"
            for key, theirs, ours in incompatible.incorrect_shapes
        ]
        explained = {key for key, _, _ in incompatible.incorrect_shapes} | self._missing.keys()
        for what, keys in (
            ("is missing", incompatible.missing_keys),
            ("is not in the model", incompatible.unexpected_keys),
        ):
            problems += [
                f"{key} {what}"
                for key in keys
                if key not in explained and (self._whole or not key.startswith(METHOD_PARTS))
            ]
        if problems:
            more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
            raise ValueError(
                f"checkpoint {self._path} does not fit the configured model: "
                f"{'; '.join(problems[:5])}{more}. Use the configuration that it was trained with."
            )


def trained_model(cfg: CfgNode) -> nn.Module:
    """The configured model with the weights of MODEL.WEIGHTS, in evaluation mode.

    Raises:
        ValueError: there are none, or from :meth:`StrictCheckpointer.load`.
        OSError: likewise.
    """
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("no weights: give MODEL.WEIGHTS RUN/model_final.pth")
    model = build_model(cfg).eval()
    StrictCheckpointer(model, trained=True).load(cfg.MODEL.WEIGHTS)
    return model


def describe(translation: Translation) -> str:
    """Which parts a foreign checkpoint filled, and why others and its own rest were left."""

    def count(names: dict[str, str]) -> str:
        reasons = Counter(names.values())
        return "".join(f"\n  {number} tensors: {why}" for why, number in reasons.items())

    parts = Counter(".".join(key.split(".")[:2]) for key in translation.state)
    filled = "".join(f"\n  {part}: {number} tensors" for part, number in parts.items())
    text = f"Recognised as {translation.title}. Filled:{filled}"
    if translation.missing:
        text += f"\nNot in the file, so initialised:{count(translation.missing)}"
    if translation.dropped:
        text += f"\nIn the file, but not used:{count(translation.dropped)}"
    return text
