"""Demo data, made and converted once for the whole run, in the real data sets' formats."""

import importlib.util
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"
REPOSITORY = Path(__file__).resolve().parent.parent
# What tools import, as if a tool of the folder ran.
sys.path += [str(REPOSITORY / "tools"), str(REPOSITORY / "tools/research")]


# Most tools run in processes that are forked from one that has imported what takes seconds to import.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pppc.engine", "pppc.prediction", "tensorboard.summary"])


def _words(command: tuple[object, ...]) -> list[str]:
    return [str(REPOSITORY / "tools" / command[0]), *map(str, command[1:])]


def _be_a_tool(words: list[str], output: list[str], environment: dict[str, str]) -> None:
    for descriptor, path in zip((1, 2), output):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    multiprocessing.set_start_method("fork", force=True)  # as Python begins on Linux
    sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


def run_tool(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a tool of the repository as a user would, without checking its exit status."""
    with tempfile.TemporaryDirectory() as folder:
        output, words = [f"{folder}/out", f"{folder}/err"], _words(command)
        run = FORKS.Process(target=_be_a_tool, args=(words, output, {**os.environ, **environment}))
        run.start()
        run.join()
        printed = [Path(path).read_text() for path in output]
    return subprocess.CompletedProcess(words, run.exitcode, *printed)


def run_anew(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """The same by an interpreter of its own: for several processes, and what acts while it begins."""
    return subprocess.run(
        [sys.executable, *_words(command)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )


def load_tool(name: str) -> ModuleType:
    """A tool as a module, for tests in this process."""
    path = REPOSITORY / "tools" / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed, as text: pytest's processes can't send each other file names that are none."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


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
