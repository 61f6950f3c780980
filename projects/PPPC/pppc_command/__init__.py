"""The command ``pppc``, which any place has after the installation.

It lies beside the package, so that ``pppc doctor`` also works where Detectron2 or OpenCV is missing, without
which ``import pppc`` ends.
"""

import sys
from importlib import import_module

COMMANDS = {
    "adapt": "from your own images, a data file, to an adapted model",
    "train": "train or evaluate by a configuration",
    "report": "one page on runs: did it work, which checkpoint, where not to trust it",
    "predict": "masks, pictures and uncertainty of images and videos",
    "check": "say whether data sets are there, whole and consistent",
    "rank": "say which images to label next, with first labels for CVAT and Label Studio",
    "compare": "say how far the target is from the source, before training",
    "export": "write a model as ONNX or TorchScript",
    "doctor": "say what is installed, what is missing and how to get it",
}


def main() -> None:
    """Run the command that ``sys.argv`` names, with the arguments after it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("pppc COMMAND ...; pppc COMMAND --help explains one\n")
        print("\n".join(f"  {command:8} {meaning}" for command, meaning in COMMANDS.items()))
        return
    if name not in COMMANDS:
        sys.exit(_error(f"there is no command {name!r}: give one of {', '.join(COMMANDS)}"))
    sys.argv = [f"pppc {name}", *sys.argv[2:]]  # argparse shows the first
    if name == "doctor":
        from .doctor import main as doctor

        sys.exit(doctor())
    try:
        from pppc.errors import run_tool
    except ImportError as error:
        sys.exit(_error(f"{error} `pppc doctor` says what else is missing"))
    run_tool(import_module(f"pppc.cli.{name}").main)


def _error(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
