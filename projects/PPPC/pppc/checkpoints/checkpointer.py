"""A checkpointer that takes other projects' files, and fails where Detectron2's warns and goes on."""

import logging
import os
import shutil
import zlib
from collections import Counter
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer, _IncompatibleKeys
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.catalog import class_colors, model_metadata
from ..errors import InputError
from ..files import atomic_write, write_atomically
from ..modeling.normalization import Preparation
from ..modeling.timm_backbone import TimmEncoder
from .classes import class_names_of, description, is_classifier, match_classes, take_rows
from .detectron2_zoo import from_detectron2, preparation_of
from .encoders import OTHER_NETWORK
from .path_handlers import local_path
from .reading import read_weights
from .translation import Translation, from_other_layout, own_names

logger = logging.getLogger(__name__)

# What one method has and another has not: a source-only checkpoint may start an adaptation, and an
# adapted one may be evaluated as a plain segmentation network. The teacher is copied from the
# student, prototypes and probabilistic head are learnt anew.
METHOD_PARTS = ("teacher.", "prototypes.", "imagenet_prototypes.", "student.probabilistic_head.")
COMPUTING = ("student.", "teacher.", "imagenet_prototypes.")
ALMOST_FULL = 2**20  # bytes left on a disk that has refused a checkpoint


class StrictCheckpointer(DetectionCheckpointer):
    """Loads a checkpoint whole, or says what does not fit.

    Args:
        model, save_dir, checkpointables: as Detectron2's.
        cfg: the configuration, for the names of the model's classes, MODEL.WEIGHTS_OTHER_CLASSES and
            how images are normalized; None: these are not compared with a file's.
        trained: the weights are to be used as they are, so that what the model predicts with may
            not be missing.
        max_to_keep: how many periodic checkpoints stay, the last ones; 0: all. The best and the
            final one always do.

    Attributes:
        missing: what the file that was loaded last has no tensors for, by our names, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        cfg: CfgNode | None = None,
        trained: bool = False,
        max_to_keep: int = 0,
        **checkpointables: object,
    ):
        super().__init__(
            model, save_dir, **checkpointables
        )  # which takes the model out of its wrapper
        self.parallel = isinstance(model, DistributedDataParallel)
        self.cfg = cfg
        self.trained = trained
        self.max_to_keep = max_to_keep
        self._tagged: object = None  # the iteration of the last checkpoint

    def save(self, name: str, *, chosen: bool = False, **extra: object) -> None:
        """As Detectron2's; an older file stays until the new one is whole. InputError: the disk is full.

        ``chosen``: where the iteration has another checkpoint already, that one stays the last one.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir, f"{name}.pth")
        logger.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as unfinished, open(unfinished, "wb") as file:
                torch.save(self.content(**extra), file)
        except (OSError, RuntimeError) as error:
            if shutil.disk_usage(path.parent).free > ALMOST_FULL:
                raise
            raise InputError(
                f"{path} cannot be written, the disk is full ({error}). The checkpoints before it "
                "are whole: free space, then continue with --resume"
            ) from error
        if not chosen or extra["iteration"] != self._tagged:
            self.tag_last_checkpoint(path.name)
        self._tagged = extra.get("iteration")
        self._remove_old()

    def content(self, **extra: object) -> dict[str, object]:
        """What a checkpoint holds."""
        parts = {name: part.state_dict() for name, part in self.checkpointables.items()}
        return {"model": self.model.state_dict(), **self.classes(), **parts, **extra}

    def classes(self) -> dict[str, list]:
        """What a checkpoint says of the classes; empty where the configuration tells none."""
        try:
            metadata = None if self.cfg is None else model_metadata(self.cfg)
        except InputError:  # its data sets are not at hand
            metadata = None
        if metadata is None:
            return {}
        colors = [list(map(int, color)) for color in class_colors(metadata)]
        return {"class_names": list(metadata.stuff_classes), "class_colors": colors}

    def class_names(self) -> list[str]:
        """The names of the model's classes; empty where the configuration tells none."""
        return self.classes().get("class_names", [])

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(path, last_filename_basename.encode())

    def _remove_old(self) -> None:
        """Delete periodic checkpoints but for the last ``max_to_keep``."""
        periodic = sorted(Path(self.save_dir).glob("model_" + "[0-9]" * 7 + ".pth"))
        for path in periodic[: -self.max_to_keep] if self.max_to_keep else []:
            path.unlink()

    def load(
        self, path: str, checkpointables: list[str] | None = None, *, checked: bool = False
    ) -> dict:
        """As Detectron2's, of files of any layout that :mod:`pppc.checkpoints` knows.

        With a ``DistributedDataParallel`` model every process must call this.

        Args:
            path, checkpointables: as Detectron2's, but a "?" is a part of the file's name.
            checked: the file is known to be whole, so that its checksum is not computed again.

        Raises:
            InputError: there is no such file, it cannot be fetched, the checkpoint is damaged, or of
                another architecture; or processes have loaded different weights. The message names
                the file.
        """
        self._path = path
        # Continuing a run, its trainer is loaded too: then nothing may be missing.
        self._whole = checkpointables is None and bool(self.checkpointables)
        self.missing: dict[str, str] = {}
        self._checked = checked
        # Not Detectron2's own, which takes what follows a "?" in a file's name for a query.
        rest = Checkpointer.load(self, local_path(path) if path else path, checkpointables)
        if path and self.parallel:
            self._check_processes()
        return rest

    def _check_processes(self) -> None:
        """See that all processes have the same weights, bit for bit."""
        checksum = 0
        for tensor in self.model.state_dict().values():
            content = tensor.cpu().contiguous().view(-1).view(torch.uint8)
            checksum = zlib.crc32(content.numpy(), checksum)
        checksums = comm.all_gather(checksum)
        if len(set(checksums)) > 1:
            others = [i for i, other in enumerate(checksums) if other != checksums[0]]
            raise InputError(
                f"{self._path} gave process {others[0]} other weights than process 0: give all "
                "machines the same file"
            )

    def _load_file(self, filename: str) -> dict:
        content = read_weights(filename, checked=self._checked)
        model = getattr(self.model, "module", self.model)
        student = model.student.state_dict()
        names = class_names_of(content, filename)
        prepared = preparation_of(content, self._path)
        translation = own_names(content["model"], self._path) if prepared is None else None
        own = translation is not None
        if not own:
            backbone = model.student.backbone
            encoder = ""
            if isinstance(backbone, TimmEncoder):
                encoder = backbone.name
                translation = from_other_layout(content["model"], student, self._path, backbone)
                told = description(filename).get("pretrained_cfg", {})
                mean, std, _ = backbone.preparation()
                prepared = Preparation(told.get("mean", mean), told.get("std", std))
            else:
                translation = from_detectron2(content["model"], student, self._path)
            logger.info(describe(translation))
            self.missing = translation.missing
            if self.cfg is not None and prepared is not None:
                prepared.warn_unless(self.cfg, encoder or self._path)
        if lost := [key for key, why in translation.dropped.items() if why == OTHER_NETWORK]:
            logger.warning(
                "%s: %d of its %d tensors are not used: %s%s",
                self._path, len(lost), len(content["model"]), ", ".join(lost[:3]),
                ", ..." * (len(lost) > 3),
            )  # fmt: skip
        if own:
            colors = content.get("class_colors") or description(filename).get("colors", [])
            content |= {
                "model": translation.state, "class_names": names, "class_colors": colors
            }  # fmt: skip
        else:
            content = {"model": translation.state}
        untrained = [key for key in self.missing if key.startswith("student.sem_seg_head.")]
        if self.trained and untrained:
            raise InputError(
                f"{self._path} holds an encoder alone, which predicts nothing yet: set MODEL.WEIGHTS "
                "to a trained model"
            )
        if self._whole:
            self._take_over_imagenet_prototypes(content)
        for key, tensor in content["model"].items():
            if key.startswith(COMPUTING) and not tensor.isfinite().all():
                raise InputError(
                    f"{self._path}: {key} holds numbers that are not finite, as of a training that "
                    "diverged. Take another checkpoint"
                )
        if not self._whole:
            if (
                not self.trained or model.class_shares.any()
            ):  # this training's, or the configuration's
                content["model"].pop("class_shares", None)
            if not self.trained:  # it is of a model that will be another one
                for key in model.error_probability.state_dict():
                    content["model"].pop(f"error_probability.{key}", None)
            content["model"] = self._of_own_classes(content["model"], names, own)
        return content

    def _take_over_imagenet_prototypes(self, content: dict) -> None:
        """A run that goes on has ImageNet prototypes if it had some; InputError: they were kept elsewhere."""
        model = getattr(self.model, "module", self.model)
        if any(key.startswith("imagenet_prototypes.") for key in content["model"]):
            return
        if "imagenet_prototypes" in content.get("trainer", {}).get("_trainer", {}):
            raise InputError(
                f"{self._path} is of a run whose ImageNet prototypes are no part of the model, as an older "
                "version had it: begin the run anew"
            )
        model.imagenet_prototypes = None

    def _of_own_classes(
        self, state: dict[str, Tensor], theirs: list[str], own: bool
    ) -> dict[str, Tensor]:
        """The tensors by our names, of a file whose classes ``theirs`` are the model's, or may be others.

        InputError: they are others, and the file is one of our ``own`` that says so.
        """
        model = getattr(self.model, "module", self.model).state_dict()
        classifier = next((k for k in state if k.startswith("student.") and is_classifier(k)), None)
        if classifier is None:
            return state
        number, ours = len(state[classifier]), self.class_names()
        if len(theirs) != number:
            theirs = []
        other = match_classes(theirs, ours) != {i: i for i in range(number)}
        if self.cfg is not None and self.cfg.MODEL.WEIGHTS_OTHER_CLASSES and not self.trained:
            if not other:
                return state
            rows = match_classes(theirs, ours)
            logger.info(
                "MODEL.WEIGHTS_OTHER_CLASSES: %s has %d classes%s. Taken over by name: %s. "
                "Learnt anew: %s",
                self._path, number, "" if theirs else ", which it does not name",
                ", ".join(ours[i] for i in rows) or "none",
                ", ".join(name for i, name in enumerate(ours) if i not in rows) or "all",
            )  # fmt: skip
            return take_rows(state, model, rows)
        if theirs and ours and other and number == len(model[classifier]):
            pairs = [f"{a} (here {b})" for a, b in zip(theirs, ours) if not match_classes([a], [b])]
            message = (
                f"{self._path} was trained on other classes: {', '.join(pairs[:3])}"
                + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
                + ". " + self._advice()
            )  # fmt: skip
            if own:
                raise InputError(message)
            logger.warning(message)
        return state

    def _advice(self) -> str:
        """What to do with a model of other classes."""
        advice = "Use the configuration that it was trained with"
        if not self.trained:
            advice += "; or set MODEL.WEIGHTS_OTHER_CLASSES True, to start from all of it but the classifier"
        return advice

    def _check_trained_parts(self, missing: list[str]) -> None:
        """See that no part is missing that the configuration lets the model predict with."""
        model = self.model
        network = "teacher." if model.evaluate_teacher else "student."
        for part, name, key, used in (
            ("teacher.", "teacher", "TEST.EVALUATE_TEACHER", model.evaluate_teacher),
            (
                network + "probabilistic_head.",
                "embedding",
                "TEST.UNCERTAINTY",
                model.output_uncertainty,
            ),
            ("prototypes.", "prototypes", "TEST.UNCERTAINTY", model.output_uncertainty),
        ):
            if used and any(tensor.startswith(part) for tensor in missing):
                raise InputError(f"{self._path} holds no {name}: set {key} False")

    def _log_incompatible_keys(self, incompatible: _IncompatibleKeys) -> None:
        if self.trained:
            self._check_trained_parts(incompatible.missing_keys)
        problems = [
            f"{key} has shape {theirs}, the model's has {ours}"
            for key, theirs, ours in incompatible.incorrect_shapes
        ]
        explained = {key for key, _, _ in incompatible.incorrect_shapes} | self.missing.keys()
        explained |= {"intensities", "class_shares"}  # older files have none
        explained |= {
            key for key in incompatible.missing_keys if key.startswith("error_probability.")
        }
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
            shapes = [key for key, _, _ in incompatible.incorrect_shapes]
            of_classes = ("prototypes.", "imagenet_prototypes.sums", "class_shares")
            others = [k for k in shapes if not (is_classifier(k) or k.startswith(of_classes))]
            only_classes = len(shapes) == len(problems) and not others
            advice = "Use the configuration that it was trained with"
            more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
            raise InputError(
                f"checkpoint {self._path} does not fit the configured model: "
                f"{'; '.join(problems[:5])}{more}. {self._advice() if only_classes else advice}"
            )


def describe(translation: Translation) -> str:
    """Which parts a foreign checkpoint filled, and why others and its own rest were left."""

    def count(names: dict[str, str]) -> str:
        reasons = Counter(names.values())
        return "".join(f"\n  {number} tensors: {why}" for why, number in reasons.items())

    parts = Counter(".".join(key.split(".")[:2]) for key in translation.state)
    filled = "".join(f"\n  {part}: {number} tensors" for part, number in parts.items())
    text = f"Recognized as {translation.title}. Filled:{filled}"
    if translation.missing:
        text += f"\nNot in the file, so initialized:{count(translation.missing)}"
    if translation.dropped:
        text += f"\nIn the file, but not used:{count(translation.dropped)}"
    return text
