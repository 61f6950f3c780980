"""With what code, packages and device a run was started, beside its configuration."""

import json
import logging
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..files import write_atomically

logger = logging.getLogger(__name__)

STARTS = "starts.json"
PACKAGES = ("pppc-detectron2", "detectron2", "torch", "torchvision", "timm", "numpy")


def code_commit() -> str:
    """The commit of this project's code, with a plus sign where files differ from it; "" without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # within a repository of something else
            return ""
        root = git("rev-parse", "--show-toplevel")
        changed = git("-C", root, "status", "--porcelain", "--", "projects", "tools", "configs")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def record_start(folder: Path, iteration: int) -> None:
    """Add to a run's starts.json: when it started, at which iteration, and with what."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    path = folder / STARTS
    try:
        starts = json.loads(path.read_text()) if path.is_file() and iteration else []
    except ValueError:
        logger.warning("%s can't be read: it begins anew", path)
        starts = []
    starts.append(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "iteration": iteration,
            "commit": code_commit(),
            "versions": versions,
            "device": device,
        }
    )
    write_atomically(path, json.dumps(starts, indent=1).encode())
