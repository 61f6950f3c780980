"""What importing the package does to a user's process."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

SCRIPT = """
import cv2, random, warnings
import numpy as np
import torch

def state():
    return (warnings.filters[:], cv2.getNumThreads(), torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
            torch.initial_seed(), random.getstate(), np.random.get_state()[1].tolist())

import detectron2.modeling, timm  # theirs is theirs
cv2.setNumThreads(3)
before = state()
import pppc
assert state() == before
"""


def test_importing_changes_nothing_global():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_importing_says_nothing():
    run = subprocess.run([sys.executable, "-c", "import pppc"], capture_output=True, text=True)
    assert run.stdout == run.stderr == ""


METHOD = sorted((REPOSITORY / "projects/PPPC/pppc/method").glob("*.py"))


@pytest.mark.parametrize("path", METHOD, ids=lambda path: path.name)
def test_the_method_is_the_paper_and_nothing_else(path):
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    for node in nodes:
        of = isinstance(node, ast.ImportFrom)
        assert not of or node.level < 2, "of another room"
        for name in [node.module or ""] if of else [alias.name for alias in node.names]:
            assert (
                name.split(".")[0] not in ("detectron2", "fvcore") and name != "torch.distributed"
            )
    keys = re.findall(r"\b(?:PPPC|MODEL|INPUT|SOLVER|DATASETS|TEST)\.[A-Z_]+", path.read_text())
    assert not keys
