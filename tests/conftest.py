"""Demo data, made and converted once for the whole run, in the real data sets' formats."""

import importlib.util
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
import torch

torch.set_num_threads(1)  # small tensors: more threads only wait for each other
os.environ["OMP_NUM_THREADS"] = "1"
# A process that has asked CUDA itself whether there is a GPU can't be forked to use it.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
REPOSITORY = Path(__file__).resolve().parent.parent
# What tools import, as if a tool of the folder ran.
sys.path += [str(REPOSITORY / "tools"), str(REPOSITORY / "tools/research")]


# Most tools run in processes that are forked from one that has imported what takes seconds to import,
# and so do the tools that these start.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pppc.engine", "pppc.prediction", "tensorboard.summary"])


def _words(command: tuple[object, ...]) -> list[str]:
    return [str(REPOSITORY / "tools" / command[0]), *map(str, command[1:])]


class _ForkedTool(subprocess.Popen):
    """Popen whose process, where it would be Python with a script or module, is forked from this one."""

    def __init__(self, command: str | list, env: dict[str, str] | None = None, **options: object):
        if command[0] == sys.executable and command[1] != "-c":
            process = FORK.Process(target=_be_python, args=(list(map(str, command[1:])), env))
            options["preexec_fn"] = partial(_be_process, process)
        super().__init__(command, env=env, **options)


FORK = multiprocessing.get_context("fork")


def _be_process(process: multiprocessing.process.BaseProcess) -> NoReturn:
    """In a child that has its streams, and would be another program next."""
    os.closerange(3, 1024)  # Popen waits for one of them to close
    threading._threading_atexits.clear()  # of thread pools: their threads are not here
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(process._bootstrap())


def _be_python(words: list[str], environment: dict[str, str] | None) -> None:
    """Python's command line: ``[-W VALUE] (SCRIPT | -m MODULE) ...``."""
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    words = words[2:] if words[0] == "-W" else words
    subprocess.Popen = _ForkedTool
    # Detectron2 starts its processes by this; anew they would import all, which a test of its script does.
    torch.multiprocessing.start_processes = partial(
        torch.multiprocessing.start_processes, start_method="fork"
    )
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def _be_a_tool(words: list[str], output: list[str], environment: dict[str, str]) -> None:
    os.setsid()
    for descriptor, path in zip((1, 2), output):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(REPOSITORY)
    multiprocessing.set_start_method("fork", force=True)  # as Python begins on Linux
    _be_python(words, environment)


class Tool:
    """A tool of the repository as a user would run it, in a session of its own."""

    def __init__(self, *command: object, **environment: str):
        self.words = _words(command)
        self._folder = tempfile.TemporaryDirectory()
        self._output = [f"{self._folder.name}/out", f"{self._folder.name}/err"]
        arguments = (self.words, self._output, {**os.environ, **environment})
        self.process = FORKS.Process(target=_be_a_tool, args=arguments)
        self.process.start()

    def end(self) -> subprocess.CompletedProcess:
        """What came of it, once it has ended."""
        self.process.join()
        printed = [Path(path).read_text() for path in self._output]
        self._folder.cleanup()
        return subprocess.CompletedProcess(self.words, self.process.exitcode, *printed)


def run_tool(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """Run a tool to its end, without checking its exit status."""
    return Tool(*command, **environment).end()


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
