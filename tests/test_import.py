"""What importing the package does to a user's process."""

import subprocess
import sys

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
