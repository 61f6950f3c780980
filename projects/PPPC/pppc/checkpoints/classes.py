"""The classes of a trained model, and starting from a model of others."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

# The last layer of this project's decoders, and of Detectron2's.
_CLASSIFIERS = ("sem_seg_head.classifier.1.", "sem_seg_head.predictor.")


def is_classifier(key: str) -> bool:
    """Whether a tensor is one of the layer that has a row for each class."""
    return any(name in key for name in _CLASSIFIERS)


def description(path: str) -> dict:
    """What config.json beside a file says of it, as Hugging Face's and timm's libraries write it."""
    file = Path(path).with_name("config.json")
    try:
        content = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def class_names_of(content: Mapping[str, object], path: str) -> list[str]:
    """The names of a checkpoint's classes, in the classifier's order; empty where nothing says.

    This project's checkpoints hold "class_names", mmsegmentation's have them in "meta", Hugging Face's in a
    config.json beside them.
    """
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    dataset = meta.get("dataset_meta")
    dataset = dataset if isinstance(dataset, dict) else {}
    for names in (content.get("class_names"), meta.get("CLASSES"), dataset.get("classes"),
                  dataset.get("CLASSES")):  # fmt: skip
        if names and isinstance(names, list | tuple):
            return [str(name) for name in names]
    labels = description(path).get("id2label")
    if isinstance(labels, dict) and all(str(i) in labels for i in range(len(labels))):
        return [str(labels[str(i)]) for i in range(len(labels))]
    return []


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def match_classes(theirs: Sequence[str], ours: Sequence[str]) -> dict[int, int]:
    """The file's class of each class of ours that it has, by name.

    Capitals, hyphens and underscores do not count.

    Examples:
        >>> match_classes(["sky", "Traffic_Light"], ["road", "traffic light", "sky"])
        {1: 1, 2: 0}
    """
    index = {_plain(name): i for i, name in reversed(list(enumerate(theirs)))}
    return {i: index[_plain(name)] for i, name in enumerate(ours) if _plain(name) in index}


def take_rows(
    state: Mapping[str, Tensor], model: Mapping[str, Tensor], rows: Mapping[int, int]
) -> dict[str, Tensor]:
    """A checkpoint's tensors with classifiers of the model's classes, without prototypes.

    Args:
        state, model: tensors by our names.
        rows: class in the checkpoint by class in the model, from :func:`match_classes`.
    """
    result = {}
    for key, tensor in state.items():
        if key.startswith(("prototypes.", "imagenet_prototypes.")):
            continue
        if is_classifier(key) and key in model:
            own, tensor = model[key].clone(), tensor.to(model[key])
            for ours, theirs in rows.items():
                own[ours] = tensor[theirs]
            tensor = own
        result[key] = tensor
    return result
