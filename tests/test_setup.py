"""The set-up's files, and what a newcomer reads when something is missing."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ARGUMENTS = (
    "install_requires", "extras_require", "packages", "package_dir", "python_requires",
)  # fmt: skip


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What setup.py passes to setuptools."""
    arguments = {}
    monkeypatch.setattr("setuptools.setup", lambda **passed: arguments.update(passed))
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    return {name: arguments[name] for name in ARGUMENTS}


def import_pppc(*first_on_path: Path, blocked: str | None = None) -> str:
    """The last line that a failing ``import pppc`` prints."""
    path = [*map(str, first_on_path), str(REPOSITORY / "projects/PPPC")]
    code = f"import sys; sys.modules.update({dict.fromkeys([blocked] if blocked else [])})"
    failed = subprocess.run(
        [sys.executable, "-c", f"{code}; import pppc"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    assert failed.returncode == 1
    return failed.stderr.splitlines()[-1]


def make(*arguments: str) -> subprocess.CompletedProcess:
    # Not as a part of the `make test` that these tests may run in.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", "-C", str(REPOSITORY), "--no-print-directory", *arguments],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_setup_names_every_package_but_neither_detectron2_nor_opencv(setup_arguments):
    requirements = " ".join(setup_arguments["install_requires"])
    assert "torch" in requirements
    assert not re.search("detectron2|opencv|cv2", requirements)
    sources = REPOSITORY / setup_arguments["package_dir"][""]
    with_code = {path.parent for path in sources.rglob("*.py")}
    assert {sources / name.replace(".", "/") for name in setup_arguments["packages"]} == with_code


def test_every_pinned_version_is_one_that_setup_allows(setup_arguments):
    lines = (REPOSITORY / "requirements.lock.txt").read_text().splitlines()[1:]
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}
    allowed = setup_arguments["install_requires"] + setup_arguments["extras_require"]["test"]
    for requirement in map(Requirement, allowed):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_pre_commit_looks_with_the_pinned_ruff():
    lock = (REPOSITORY / "requirements.lock.txt").read_text()
    (pin,) = re.findall(r"^ruff==(.*)$", lock, re.MULTILINE)
    assert f"rev: v{pin}\n" in (REPOSITORY / ".pre-commit-config.yaml").read_text()


@pytest.mark.parametrize(
    ("package", "advice"),
    [
        ("detectron2", "'git+https://github.com/facebookresearch/detectron2.git'"),
        ("detectron2", "`make setup`"),
        ("cv2", "pip install opencv-python-headless"),
    ],
)
def test_import_says_what_is_missing_and_what_to_do(package, advice):
    message = import_pppc(blocked=package)
    assert message.startswith(f"ImportError: PPPC needs {package}.") and advice in message


def test_broken_package_shows_its_own_cause(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object')")
    message = import_pppc(tmp_path)
    assert "cv2 cannot be imported (libGL.so.1: cannot open shared object)" in message


def test_old_detectron2_is_named_as_such(tmp_path):
    for package in ("detectron2", "detectron2/solver"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    build = tmp_path / "detectron2/solver/build.py"
    build.write_text("def get_default_optimizer_params(model, base_lr=None): ...")
    assert "this Detectron2 is too old" in import_pppc(tmp_path)


def test_make_alone_explains_its_targets():
    explained = make()
    assert explained.returncode == 0
    for target in ("demo", "test", "check", "docs", "setup", "clean"):
        assert f"make {target} " in explained.stdout


@pytest.mark.parametrize("interpreter", ["/nonexistent", "/bin/false"])
def test_unsuitable_interpreter_ends_in_one_line_before_anything_changes(interpreter, tmp_path):
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").symlink_to(sys.executable)
    (environment / "complete").write_text("kept")

    stopped = make("setup", f"PYTHON={interpreter}", f"VENV={environment}")

    assert stopped.returncode != 0 and not stopped.stdout
    message, closing_line = stopped.stderr.splitlines()
    assert f"'{interpreter}' is no working Python 3.11 or 3.12" in message
    assert "make PYTHON=" in message and closing_line.startswith("make: ***")
    assert (environment / "complete").read_text() == "kept"
