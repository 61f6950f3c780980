#!/usr/bin/env python3
"""Train long, and watch the memory and the open files of all processes of the run.

    tools/research/soak.py --config-file configs/FILE.yaml --output DIR [--num-gpus N] [KEY VALUE ...]

Prints for each quarter of the training the most memory (proportional set size, which counts a page
that several processes share once, MB), open files and processes at any moment, and writes all
samples to soak.json in DIR. The exit status is 1 where the run fails, or the last quarter has over
5 % more memory or more open files than the second. Linux alone tells these numbers.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from pppc.arguments import ToolParser, whole_number
from pppc.errors import InputError, run_tool
from pppc.files import write_atomically

TRAIN = Path(__file__).resolve().parents[1] / "train_net.py"
SECONDS = 0.5  # between two looks


def processes(root: int) -> list[Path]:
    """Folders in /proc of a process and all that it started."""
    found, waiting = [], [root]
    while waiting:
        folder = Path("/proc", str(waiting.pop()))
        try:
            tasks = [task / "children" for task in (folder / "task").iterdir()]
            waiting += [int(child) for task in tasks for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(folder)
    return found


def look(root: int) -> dict[str, float]:
    """Memory, open files and number of the processes of a run, all together."""
    memory, files, number = 0, 0, 0
    for folder in processes(root):
        try:
            memory += int((folder / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
            files += len(list((folder / "fd").iterdir()))
            number += 1
        except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
            continue  # it has just ended
    return {"memory_mb": memory / 1024, "open_files": files, "processes": number}


def iterations(run: Path) -> int:
    """How many iterations metrics.json tells of."""
    path = run / "metrics.json"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(whole[-1])["iteration"] + 1 if whole else 0


def main() -> int:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--num-gpus", type=whole_number(1), default=1)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... of the run")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise InputError(f"{arguments.output} exists: choose another --output")
    arguments.output.mkdir(parents=True)
    folder = arguments.output / "run"
    command = [
        sys.executable, str(TRAIN), "--config-file", arguments.config_file, "--num-gpus",
        str(arguments.num_gpus), *arguments.opts, "OUTPUT_DIR", str(folder),
    ]  # fmt: skip
    samples: list[dict[str, float]] = []
    with open(arguments.output / "console.txt", "w") as console:
        run = subprocess.Popen(command, stdout=console, stderr=console)
    while run.poll() is None:
        samples.append({"iterations": iterations(folder), **look(run.pid)})
        time.sleep(SECONDS)
    write_atomically(arguments.output / "soak.json", json.dumps(samples).encode())
    if run.returncode:
        raise InputError(f"the run fails: see {arguments.output}/console.txt")
    last = max(sample["iterations"] for sample in samples)
    most = []
    for quarter in range(4):
        low, high = last * quarter / 4, last * (quarter + 1) / 4
        there = [sample for sample in samples if low < sample["iterations"] <= high]
        if not there:
            raise InputError(f"{last} iterations are too few to compare: raise SOLVER.MAX_ITER")
        most.append({name: max(sample[name] for sample in there) for name in samples[0]})
        print(
            "iterations to {iterations}: {memory_mb:.0f} MB, {open_files} open files, "
            "{processes} processes".format(**most[-1])
        )
    grown = [
        name
        for name, factor in (("memory_mb", 1.05), ("open_files", 1))
        if most[3][name] > factor * most[1][name]
    ]
    print(f"grown: {', '.join(grown) or 'nothing'}")
    return 1 if grown else 0


if __name__ == "__main__":
    run_tool(main)
