"""A trained model as a folder that says what it is: model.safetensors, config.json and a model card.

:func:`pppc.prediction.predictor.load` takes it, where no data set is registered, too, and MODEL.WEIGHTS takes
its weights.
"""

import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import safetensors.torch
import timm
import torch
from detectron2.config import CfgNode, get_cfg
from huggingface_hub import ModelCardData
from torch import Tensor

from .config.defaults import KEYS, add_pppc_config, by_key, section_of
from .data.catalog import list_records
from .engine.run_folder import RunFolder
from .errors import InputError
from .files import user_path
from .prediction import Predictor

# Of the configuration, what a prediction needs, and what tells how the model was trained.
SECTIONS = ("INPUT.", "MODEL.", "PPPC.", "TEST.")
# Of the machine that it was trained on.
ELSEWHERE = (
    "MODEL.DEVICE", "MODEL.WEIGHTS", "PPPC.IMAGENET_PROTOTYPES.WEIGHTS", "PPPC.FEATURE_DISTANCE.WEIGHTS",
)  # fmt: skip
ROLES = {"source": "DATASETS.TRAIN", "target": "DATASETS.TARGET", "test": "DATASETS.TEST"}


def save_model_folder(
    model: Predictor, folder: str | os.PathLike, scores: Mapping[str, float] | None = None
) -> Path:
    """Write a trained model; of student and teacher the one that predicts.

    Args:
        model: from :func:`pppc.prediction.predictor.load`.
        folder: a new one, or an empty one.
        scores: figures that the model has reached, by what they are, such as {"mIoU on cityscapes_val
            (%)": 43.2}.

    Returns:
        the folder.

    Raises:
        InputError: from :func:`new_folder`.

    Examples::

        save_model_folder(pppc.load("output/demo/pppc"), "street_model")
        result = pppc.load("street_model").predict("street.png")
    """
    folder = new_folder(folder)
    content = describe(model)
    content["scores"] = content.get("scores", {}) | dict(scores or {})
    content["settings"] = _settings(model.cfg)
    unfinished = folder.with_name(f"partial_{os.getpid()}_{folder.name}")
    unfinished.mkdir()
    try:
        weights = str(unfinished / "model.safetensors")
        safetensors.torch.save_file(_predicting_state(model), weights, {"format": "pt"})
        (unfinished / "config.json").write_text(json.dumps(content, indent=2) + "\n")
        (unfinished / "README.md").write_text(_model_card(content, folder.name))
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def new_folder(path: str | os.PathLike) -> Path:
    """Where a folder can be made, or an empty one is.

    Raises:
        InputError: something is there, or the folder above it is not.
    """
    folder = Path(os.path.abspath(user_path(os.fspath(path), "the model's folder")))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists: choose another folder for the model")
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent} is no folder: make it first, or choose another one")
    return folder


def recorded_scores(model: Predictor) -> dict[str, float]:
    """The mIoU that a run's metrics.json, beside the checkpoint, has of it; empty where there is none."""
    file = Path(model.cfg.MODEL.WEIGHTS)
    lines = RunFolder(file.parent).metrics()
    if not lines or file.suffix != ".pth":
        return {}
    content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    iteration = content.get("iteration", -2)
    scores = {}
    for entry in lines:
        if entry["iteration"] not in (iteration, iteration + 1):  # the latter after the last one
            continue
        for key, score in entry.items():
            if key.endswith("sem_seg/mIoU"):
                name = key.removesuffix("sem_seg/mIoU").rstrip("/") or model.cfg.DATASETS.TEST[0]
                scores[f"mIoU on {name} (%)"] = score
    return scores


def describe(model: Predictor) -> dict:
    """What a program or a reader must know to use a model's outputs, as JSON holds it.

    Class names are where Hugging Face's libraries have them, in "id2label". Of a model folder's model it
    is what the folder says.
    """
    if "id2label" in model.trained_with:
        return {key: value for key, value in model.trained_with.items() if key != "settings"}
    cfg = model.cfg
    return {
        "model_type": "pppc",
        "pppc_version": _version(),
        "method": _method(cfg),
        "id2label": {str(index): name for index, name in enumerate(model.names)},
        "colors": model.colors,
        "preprocessing": {
            "channels": cfg.INPUT.FORMAT,
            "mean": list(cfg.MODEL.PIXEL_MEAN),
            "std": list(cfg.MODEL.PIXEL_STD),
            "shortest_side": cfg.INPUT.MIN_SIZE_TEST,
            "longest_side": cfg.INPUT.MAX_SIZE_TEST,
            "resizing": cfg.INPUT.RESIZING,
        },
        "uncertainty": model.uncertainty_is or None,
        "encoder": _encoder(cfg, str(model.trained_with.get("MODEL.WEIGHTS", ""))),
        "data": {role: _numbers_of_images(cfg, key) for role, key in ROLES.items()},
    }


def _version() -> str:
    try:
        return version("pppc-detectron2")
    except PackageNotFoundError:  # imported from a checkout
        return "unknown"


def _method(cfg: CfgNode) -> str:
    if cfg.PPPC.CONTRAST.ENABLED:
        return "PPPC (arXiv 2409.18543)"
    return "DACS (arXiv 2007.08702)" if cfg.PPPC.SELF_TRAINING.ENABLED else "source-only"


def _encoder(cfg: CfgNode, weights: str) -> dict[str, str | None]:
    """Its name, the weights that training began with, and the license of the encoder's known weights."""
    name, license = cfg.MODEL.BACKBONE.NAME, None
    if name in ("build_timm_backbone", "build_vit_backbone"):
        name = cfg.MODEL.TIMM.NAME
        if weights or cfg.MODEL.TIMM.PRETRAINED:
            license = timm.get_pretrained_cfg(name).license
            weights = weights or "timm's"
    start = weights if "://" in weights else os.path.basename(weights)
    return {"name": name, "weights": start or None, "license": license}


def _numbers_of_images(cfg: CfgNode, key: str) -> dict[str, int | None]:
    """By the data set's name; None where it is not at hand."""
    node, last = section_of(cfg, key)
    numbers: dict[str, int | None] = {}
    for name in node[last]:
        try:
            numbers[name] = len(list_records(name))
        except InputError:
            numbers[name] = None
    return numbers


def _settings(cfg: CfgNode) -> dict[str, object]:
    """Keys and values for the model that :func:`_predicting_state` fills."""
    defaults = get_cfg()
    add_pppc_config(defaults)
    unused = {key: json.dumps(value) for key, value in by_key(defaults) if key not in KEYS}
    settings = {
        key: value
        for key, value in by_key(cfg)
        if key.startswith(SECTIONS)
        and key not in ELSEWHERE
        and json.dumps(value) != unused.get(key)
    }
    return settings | {"MODEL.TIMM.PRETRAINED": False, "TEST.EVALUATE_TEACHER": False}


def _predicting_state(model: Predictor) -> dict[str, Tensor]:
    """The weights that predict, the teacher's under the student's names."""
    state = model.model.state_dict()
    unused, used = ("teacher.", "student.")
    if getattr(model.model, "evaluate_teacher", False):
        unused, used = used, unused
    return {
        key.replace(used, "student.", 1) if key.startswith(used) else key: tensor.contiguous()
        for key, tensor in state.items()
        if not key.startswith(unused)
    }


def _model_card(content: Mapping, name: str) -> str:
    """README.md, with the head that Hugging Face's hub reads."""
    head = ModelCardData(
        library_name="pppc",
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", "domain-adaptation"],
    )
    encoder, data, size = content["encoder"], content["data"], content["preprocessing"]
    lines = [
        f"# {name}",
        f"Semantic segmentation of {len(content['id2label'])} classes: "
        f"{', '.join(content['id2label'].values())}.",
        f"Method: {content['method']}, by pppc-detectron2 {content['pppc_version']}.",
        "```python\nimport pppc\n\n"
        f'model = pppc.load("{name}")\n'
        'result = model.predict("street.png")  # .labels, .confidence, .uncertainty\n'
        'result.draw().save("street_classes.png")\n```',
        "Images are resized to "
        f"a shortest side of {size['shortest_side']} and a longest side of at most "
        f"{size['longest_side']} pixels."
        if size["shortest_side"]
        else "Images are taken as large as they are.",
        "## Data",
        "\n".join(
            f"- {role}: {name}, {number or 'an unknown number of'} images"
            for role, numbers in data.items()
            for name, number in numbers.items()
        )
        or "Not recorded.",
        "Of the target the images alone were used, not their labels.",
        "## Figures",
        "\n".join(f"- {what}: {score:.4g}" for what, score in content.get("scores", {}).items())
        or "None were recorded.",
        "## Terms",
        f"The encoder is {encoder['name']}. Training began with {encoder['weights'] or 'random numbers'}. "
        f"License of the encoder's published weights: {encoder['license'] or 'not known here'}. The data "
        "sets have terms of their own.",
    ]
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(lines) + "\n"
