"""Demo data, made and converted once for the whole run, in the real data sets' formats."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
REPOSITORY = Path(__file__).resolve().parent.parent
# What tools import, as if a tool of the folder ran.
sys.path += [str(REPOSITORY / "tools"), str(REPOSITORY / "tools/research")]


def run_tool(*command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a tool of the repository as a user would, without checking its exit status."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / command[0]), *map(str, command[1:])],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def load_tool(name: str) -> ModuleType:
    """A tool as a module, for tests in this process."""
    path = REPOSITORY / "tools" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small, converted gta, synthia, cityscapes and dark_zurich data sets."""
    root = tmp_path_factory.mktemp("demo") / "datasets"
    made = run_tool(
        "make_demo_data.py", root, "--nproc", 1, "--size", "128x64", "--gta-train", 8,
        "--cityscapes-train", 6, "--cityscapes-val", 3, "--synthia-train", 4, "--dark-zurich-train", 3,
        "--dark-zurich-val", 2, "--dark-zurich-test", 2,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    for name in ("gta", "synthia", "cityscapes"):
        converted = run_tool(f"convert_datasets/{name}.py", root / name, "--nproc", "1")
        assert converted.returncode == 0, converted.stderr
    return root


@pytest.fixture
def datasets_root(demo_datasets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo data as DETECTRON2_DATASETS of this process."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(demo_datasets))
    return demo_datasets
