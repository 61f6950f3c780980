"""The set-up's files and the messages a newcomer sees when something is missing."""

import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from setuptools import find_packages

import pppc


def _requirements(monkeypatch) -> tuple[dict, list[Requirement]]:
    """What setup.py passes to setuptools, and its requirements."""
    passed = {}
    monkeypatch.setattr("setuptools.setup", passed.update)
    monkeypatch.chdir(REPOSITORY)
    exec((REPOSITORY / "setup.py").read_text(), {"__name__": "__main__"})
    return passed, [Requirement(line) for line in passed["install_requires"]]


def _pins() -> dict[str, str]:
    text = (REPOSITORY / "requirements.lock.txt").read_text()
    return {name.lower(): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)$", text)}


def test_setup_names_neither_detectron2_nor_opencv_and_every_package(monkeypatch):
    passed, requirements = _requirements(monkeypatch)
    names = {requirement.name for requirement in requirements}
    assert not any("detectron2" in name or "opencv" in name for name in names)
    packages = find_packages(REPOSITORY / "projects/PPPC")
    assert passed["packages"] == packages and "pppc.data.demo" in packages


def test_every_pinned_version_is_one_that_setup_allows(monkeypatch):
    _, requirements = _requirements(monkeypatch)
    pins = _pins()
    for requirement in requirements:
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert "opencv-python-headless" in pins and "pytest" in pins


@pytest.mark.parametrize(
    ("module", "mend"),
    [("detectron2", "git+https://github.com/facebookresearch/detectron2"),
     ("cv2", "pip install opencv-python-headless")],
)  # fmt: skip
def test_import_says_what_is_missing_and_what_to_do(module, mend):
    code = f"import sys; sys.modules[{module!r}] = None; import pppc"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError:") and module in last and mend in last


def test_broken_package_shows_its_own_cause(tmp_path):
    (tmp_path / "cv2.py").write_text("import libGL_of_another_system")
    source = str(REPOSITORY / "projects/PPPC")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {source!r}]; import pppc"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert "cv2 cannot be imported (No module named 'libGL_of_another_system')" in last


def test_wrong_interpreter_ends_in_one_line_and_leaves_no_environment(tmp_path):
    run = subprocess.run(
        ["bash", str(REPOSITORY / "tools/setup_environment.sh"), "/nonexistent", tmp_path / "venv"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1 and "make PYTHON=" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_package_is_the_repository_s():
    assert pppc.__file__ == str(REPOSITORY / "projects/PPPC/pppc/__init__.py")
