#!/usr/bin/env python3
"""Kill training runs at random moments, resume them, and compare with one that was left alone.

    tools/research/kill_runs.py --config-file configs/FILE.yaml --output DIR [--kills 25] [--seed 0] \
        [KEY VALUE ...]

Of each kill are drawn: the signal (SIGKILL or SIGTERM), and the moment, either any within the time
that a run takes or the next writing of a checkpoint. A run is resumed and killed until it ends; then
its final weights must equal the other's bit for bit, its metrics.json have every iteration that the
other's has, each once, and no unfinished file be left. kills.json in DIR records every kill. The
exit status is 1 where something differs. Bit for bit is promised on one CPU process.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from pppc.arguments import ToolParser, whole_number
from pppc.errors import InputError, run_tool
from pppc.files import unfinished_files, write_atomically

TRAIN = Path(__file__).resolve().parents[1] / "train_net.py"


def start(arguments: argparse.Namespace, folder: Path) -> subprocess.Popen:
    """Begin a run, or go on with it."""
    command = [
        sys.executable, str(TRAIN), "--resume", "--config-file", arguments.config_file,
        *arguments.opts, "OUTPUT_DIR", str(folder),
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "console.txt", "a") as console:
        return subprocess.Popen(command, stdout=console, stderr=console)


def wait_and_kill(
    run: subprocess.Popen, folder: Path, draws: random.Random, seconds: float
) -> dict | None:
    """Kill a run at a random moment; returns how, or None where it ended before."""
    number = draws.choice([signal.SIGKILL, signal.SIGTERM])
    at_checkpoint = draws.random() < 0.3
    moment = draws.uniform(0, seconds)
    began, left = time.monotonic(), set(unfinished_files(folder))
    while run.poll() is None:
        writing = not left.issuperset(unfinished_files(folder))
        passed = time.monotonic() - began
        if writing if at_checkpoint else passed >= moment:
            run.send_signal(number)
            run.wait()
            return {
                "signal": number.name,
                "after_seconds": round(passed, 3),
                "while_writing": writing,
                "status": run.returncode,
            }
        time.sleep(0.001)
    return None


def iterations(folder: Path) -> list[int]:
    """The iterations of metrics.json's lines."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return [json.loads(line)["iteration"] for line in lines]


def differences(folder: Path, reference: Path) -> list[str]:
    """What a run that was killed has otherwise than the one that was not."""
    ours, theirs = (
        torch.load(path / "model_final.pth", map_location="cpu", weights_only=True)["model"]
        for path in (folder, reference)
    )
    found = [
        f"{name} differs"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name])
    ]
    lines = iterations(folder)
    found += [f"iteration {i} has several lines" for i in sorted(set(lines)) if lines.count(i) > 1]
    found += [f"iteration {i} has no line" for i in sorted(set(iterations(reference)) - set(lines))]
    return found + [f"{path.name} is left" for path in unfinished_files(folder)]


def main() -> int:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", type=Path, required=True, help="a new folder for all runs")
    parser.add_argument("--kills", type=whole_number(1), default=25)
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the signals and moments"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ... of all runs")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise InputError(f"{arguments.output} exists: choose another --output")
    began = time.monotonic()
    reference = arguments.output / "reference"
    if start(arguments, reference).wait():
        raise InputError(f"the run fails without a kill: see {reference}/console.txt")
    seconds = time.monotonic() - began
    draws = random.Random(arguments.seed)
    kills: list[dict] = []
    problems: list[str] = []
    number = 0
    while len(kills) < arguments.kills:
        folder = arguments.output / f"killed_{number}"
        run = start(arguments, folder)
        while len(kills) < arguments.kills:
            kill = wait_and_kill(run, folder, draws, seconds)
            if kill is None:
                break
            kills.append({"run": number, **kill})
            print(kills[-1], flush=True)
            run = start(arguments, folder)
        if run.wait():
            problems.append(f"{folder} ended with status {run.returncode}: see its console.txt")
        else:
            problems += [f"{folder}: {found}" for found in differences(folder, reference)]
        number += 1
    record = {"seed": arguments.seed, "kills": kills, "problems": problems}
    write_atomically(arguments.output / "kills.json", json.dumps(record, indent=1).encode())
    print(f"{len(kills)} kills of {number} runs, {len(problems)} problems")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    run_tool(main)
