"""A data file: YAML that says where images and labels of one's own are, and what the labels mean.

::

    path: ..                                    # of what follows; relative to this file
    source: {images: day/images, masks: day/masks}
    target: {images: night}                     # images alone, nothing else is opened
    val: {images: night_val/images, masks: night_val/masks}    # optional
    names: {0: road, 1: sidewalk, 2: car}       # optional where the labels' format says it
    label_mapping: {7: 0, 8: 1, 26: 2, other: ignore}    # optional; also of colors

It makes data sets like any other in Detectron2's catalogs: FILE_source, FILE_target and FILE_val.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import log_first_n

from ...errors import InputError, printable
from ...files import read_yaml, user_path
from ..catalog import register_listing
from ..formats.drawing import draw_labels
from ..labels import LabelReader
from ..listing import Listing
from ..train_ids import LabelSpace
from .label_keys import LABEL_KEYS, LabelKeys, refuse_unknown
from .label_meaning import Meaning, meaning
from .pairing import some
from .section_files import SectionFiles, find_section
from .sections import Section, read_sections

logger = logging.getLogger(__name__)

ROLES = ("target", "source", "val")


@dataclass(frozen=True)
class DataFile:
    """The data sets of a data file, as they are registered.

    Attributes:
        path: of the file.
        classes: the model's.
        source, target, val: names of the data sets.
        source_weights, target_weights: how often each is drawn; (): as many images as it has.
    """

    path: Path
    classes: tuple[str, ...]
    source: tuple[str, ...]
    target: tuple[str, ...]
    val: tuple[str, ...]
    source_weights: tuple[float, ...] = ()
    target_weights: tuple[float, ...] = ()

    def settings(self) -> dict[str, object]:
        """The configuration keys that the file decides."""
        return {
            "DATASETS.FILE": str(self.path),
            "DATASETS.TRAIN": self.source,
            "DATASETS.TRAIN_WEIGHTS": self.source_weights,
            "DATASETS.TARGET": self.target,
            "DATASETS.TARGET_WEIGHTS": self.target_weights,
            "DATASETS.TEST": self.val,
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(self.classes),
        }


def register_data_file(path: str | os.PathLike) -> DataFile:
    """Register the data sets of a data file; the same file again registers what it says now.

    Raises:
        InputError: the file says something that can't be, or that does not fit what lies in the folders;
            the message names the place in the file.
    """
    file = Path(os.path.abspath(user_path(os.fspath(path), "the data file")))
    content = read_yaml(str(file), str(file))
    place = file.name
    refuse_unknown(content, ("path", "source", "target", "val", *LABEL_KEYS), place)
    top = LabelKeys.read(content, place)
    if not isinstance(content.get("path", "."), str):
        raise InputError(f"{place}.path is {content['path']!r}: give a folder")
    base = file.parent / user_path(content.get("path", "."), f"{place}.path")
    sections = {role: read_sections(content, role, place) for role in ROLES}
    if not sections["source"]:
        raise InputError(
            f"{place}: has no source: give source, with images: FOLDER and masks: FOLDER"
        )
    files: dict[str, list[SectionFiles]] = {}
    for role in ROLES:
        targets = files.get("target", ())
        files[role] = [find_section(base, section, targets) for section in sections[role]]
    _refuse_overlaps(place, files)
    known: list[str] = []
    meanings: dict[str, list[Meaning]] = {}
    for role in (
        "val",
        "source",
    ):  # without names the model has the classes of val, if there is one
        meanings[role] = [
            _meaning(section, top, found, known)
            for section, found in zip(sections[role], files[role])
        ]
        names = (name for found in meanings[role] for name in found.space.class_names)
        known = known or list(dict.fromkeys(names))
    unmatched = [meant.unmatched for meant in (*meanings["source"], *meanings["val"])]
    for name in frozenset.intersection(*unmatched):
        raise InputError(f"{place}.label_mapping: {name!r} is no class that any labels name")
    classes = tuple(top.classes or known)
    return _register(file, classes, sections, files, meanings)


def _meaning(section: Section, top: LabelKeys, found: SectionFiles, known: list[str]) -> Meaning:
    keys = LabelKeys.read(section.keys, section.place, top)
    meant = meaning(keys, top, found.labels, list(found.masks.values()), known)
    kind = f"labels as of {found.labels.name} ({found.labels.file})" if found.labels else "masks"
    classes = ", ".join(meant.space.class_names)
    for remark in (f"{kind} show {classes}", *meant.remarks):
        log_first_n(logging.INFO, printable(f"{section.place}: {remark}"), key="message")
    return meant


def _refuse_overlaps(place: str, files: Mapping[str, list[SectionFiles]]) -> None:
    """Raises InputError where images to evaluate on are trained on, too."""
    real = {
        role: {os.path.realpath(f): f for found in files[role] for f in found.images.values()}
        for role in ROLES
    }
    for role in ("source", "target"):
        if both := real[role].keys() & real["val"].keys():
            raise InputError(
                f"{place}: {len(both)} of the {len(real['val'])} images of val are images of {role}, too "
                f"({some(both)}): figures on images that were trained on tell nothing. Leave them out of one"
            )


def _register(
    file: Path,
    classes: tuple[str, ...],
    sections: Mapping[str, list[Section]],
    files: Mapping[str, list[SectionFiles]],
    meanings: Mapping[str, list[Meaning]],
) -> DataFile:
    colors: dict[str, tuple[int, int, int]] = {}
    for meant in (*meanings["val"], *meanings["source"]):
        colors = dict(zip(meant.space.class_names, meant.space.colors)) | colors
    own = LabelSpace(
        {i: i for i in range(len(classes))}, frozenset({255}), classes,
        tuple(colors.get(name, (0, 0, 0)) for name in classes),
    )  # fmt: skip
    names: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        several = len(sections[role]) > 1
        names[role] = tuple(
            f"{file.stem}_{role}{f'_{number}' if several else ''}"
            for number in range(1, len(sections[role]) + 1)
        )
        for index, name in enumerate(names[role]):
            meant = meanings[role][index] if role in meanings else Meaning(own, True)
            _forget(name, file)
            register_listing(
                name,
                _Listed(files[role][index]),
                LabelReader(
                    _of_model(meant.space, own), False, numbers_are_ids=meant.numbers_are_ids
                ),
                data_file=str(file),
            )
    weights = {
        role: tuple(float(s.weight) for s in sections[role] if s.weight is not None)
        for role in ROLES
    }
    return DataFile(file, classes, names["source"], names["target"], names["val"],
                    weights["source"], weights["target"])  # fmt: skip


def _of_model(space: LabelSpace, model: LabelSpace) -> LabelSpace:
    """The same labels as the model's classes; what is none of them is ignored."""
    names = {label_id: space.class_names[i] for label_id, i in space.id_to_train_id.items()}
    ids = {i: model.class_names.index(n) for i, n in names.items() if n in model.class_names}
    void = space.void_ids | (names.keys() - ids.keys())
    return replace(
        model,
        id_to_train_id=ids,
        void_ids=void,
        id_colors=space.id_colors,
        void_colors=space.void_colors,
    )


def _forget(name: str, file: Path) -> None:
    """Free a name that a data file registered before; raises InputError where it is another one's."""
    if name in DatasetCatalog.list():
        other = MetadataCatalog.get(name).get("data_file")
        if other is None:
            raise InputError(f"another data set is registered as {name} already: rename {file}")
        if other != str(file):
            logger.warning("%s is from now on that of %s, not of %s", name, file, other)
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def register_data_file_of(cfg: CfgNode) -> None:
    """Register the data sets of DATASETS.FILE in a process that has them of no file, or of another."""
    known = DatasetCatalog.list()
    files = {
        MetadataCatalog.get(n).get("data_file") if n in known else None for n in cfg.DATASETS.TRAIN
    }
    if cfg.DATASETS.FILE and files != {cfg.DATASETS.FILE}:
        register_data_file(cfg.DATASETS.FILE)


@dataclass(frozen=True)
class _Listed:
    """Gives the files of a section; labels that are to be drawn are drawn when they are asked for."""

    files: SectionFiles

    def __call__(self) -> Listing:
        labels: Mapping[str, object] = self.files.masks or draw_labels(self.files.drawings)
        return Listing(list(_records(self.files, labels)), self.files.left_out)


def _records(files: SectionFiles, labels: Mapping[str, object]) -> Iterable[dict]:
    for known in sorted(files.images, key=lambda known: known.split("/")):
        record = {"file_name": str(files.images[known]), "image_id": known}
        yield record | ({"sem_seg_file_name": str(labels[known])} if labels else {})
