"""A checkpointer that fails where Detectron2's warns and goes on with random weights."""

from __future__ import annotations

from detectron2.checkpoint import DetectionCheckpointer
from fvcore.common.checkpoint import _IncompatibleKeys

__all__ = ["StrictCheckpointer"]

# What one method has and another has not: a source-only checkpoint may start an adaptation, and an
# adapted one may be evaluated as a plain segmentation network. The teacher is copied from the
# student, prototypes and probabilistic head are learnt anew.
METHOD_PARTS = ("teacher.", "prototypes.", "student.probabilistic_head.")


class StrictCheckpointer(DetectionCheckpointer):
    """Loads a checkpoint whole, or says what does not fit."""

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the checkpoint is of another architecture; the message names the file.
        """
        if path and "://" not in path and not self.path_manager.isfile(path):
            raise FileNotFoundError(f"no checkpoint {path}: set MODEL.WEIGHTS to an existing file")
        self._path = path
        # Continuing a run, its trainer is loaded too: then nothing may be missing.
        self._whole = checkpointables is None and bool(self.checkpointables)
        return super().load(path, checkpointables)

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        problems = [
            f"{key} has shape {theirs}, the model's has {ours}"
            for key, theirs, ours in incompatible.incorrect_shapes
        ]
        misshapen = {key for key, _, _ in incompatible.incorrect_shapes}
        for what, keys in (
            ("is missing", incompatible.missing_keys),
            ("is not in the model", incompatible.unexpected_keys),
        ):
            problems += [
                f"{key} {what}"
                for key in keys
                if key not in misshapen and (self._whole or not key.startswith(METHOD_PARTS))
            ]
        if problems:
            more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
            raise ValueError(
                f"checkpoint {self._path} does not fit the configured model: "
                f"{'; '.join(problems[:5])}{more}. Use the configuration that it was trained with."
            )
