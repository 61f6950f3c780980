"""How label-free choices are judged, on runs that were made up."""

import json

import numpy as np
import yaml
from conftest import run_tool
from pppc.evaluation.selection import SCORES

# Per row and seed the mIoU of its checkpoints, and their entropy; the pixels' classes are below.
RUNS = {
    ("good", 1): ([30.0, 40.0, 35.0], [0.9, 0.5, 0.7]),
    ("good", 2): ([31.0, 38.0, 36.0], [0.9, 0.5, 0.7]),
    ("bad", 1): ([20.0, 12.0, 10.0], [0.3, 0.2, 0.1]),
    ("bad", 2): ([22.0, 11.0, 33.0], [0.3, 0.2, 0.1]),
}


def write_run(folder, mious, entropies):
    folder.mkdir(parents=True)
    (folder / "model_final.pth").touch()  # it is finished
    lines = []
    for number, (miou, entropy) in enumerate(zip(mious, entropies)):
        scores = {"selection/odd_classes": 0, "selection/entropy": entropy}
        lines.append({"iteration": 10 * number + 9, "sem_seg/mIoU": miou} | scores)
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Three candidates of one image with four pixels: the vote is 0 1 0 1, as the second one says.
    classes = np.array([[[0, 1, 1, 1]], [[0, 1, 0, 1]], [[0, 0, 0, 1]]], dtype=np.uint8)
    np.savez(folder / "selection.npz", iterations=[9, 19, 29], voices=[1, 1, 1], classes=classes)


def table(output, kind):
    """The rows of the table of a kind, by their first cell."""
    part = next(part for part in output.split("\n\n") if part.startswith(f"| {kind} "))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()[2:]]
    return {row[0]: row[1:] for row in rows}


def test_choices_are_judged_by_what_they_miss(tmp_path):
    config = "configs/demo_gta_to_cityscapes_pppc.yaml"
    study = {
        "seeds": [1, 2],
        "reference": "good",
        "rows": {row: {"config": config} for row in ("good", "bad")},
    }
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(study))
    for (row, seed), (mious, entropies) in RUNS.items():
        write_run(tmp_path / f"runs/made/{row}-{seed}", mious, entropies)

    run = run_tool("research/label_free_choice.py", path, "--output", tmp_path / "runs")
    assert run.returncode == 0, run.stderr[-2000:]
    iterations = table(run.stdout, "iterations")
    assert set(iterations) == {"last", "ensemble_agreement", "entropy"} < {"last", *SCORES}
    # Regrets of the last: 5, 2, 10, 0; the worst of the three once.
    assert iterations["last"][1:] == ["4.2", "10.0", "1 of 4"]
    # Entropy is right about the good runs and takes the last of the bad ones.
    # Rank correlations of -entropy and mIoU: 1, 1, -1, 0.5.
    assert iterations["entropy"] == ["+0.38", "2.5", "10.0", "1 of 4"]
    # The second is the vote: regrets 0, 0, 8, 22.
    assert iterations["ensemble_agreement"][1:] == ["7.5", "22.0", "1 of 4"]
    # The last ones of both rows: good 35 and 36, bad 10 and 33. Low entropy takes the bad ones.
    settings = table(run.stdout, "settings")
    assert settings["entropy"][1:3] == ["14.0", "25.0"]
    assert table(run.stdout, "all")["entropy"][1:] == ["30.0", "30.0", "1 of 1"]

    alone = run_tool("research/label_free_choice.py", path, "--output", tmp_path / "runs",
                     "--leave-out", "bad")  # fmt: skip
    assert "6 checkpoints of 2 of 2 runs" in alone.stdout
    (tmp_path / "runs/made/good-2/model_final.pth").unlink()
    unfinished = run_tool("research/label_free_choice.py", path, "--output", tmp_path / "runs")
    assert "9 checkpoints of 3 of 4 runs" in unfinished.stdout
    none = run_tool("research/label_free_choice.py", path, "--output", tmp_path / "nothing")
    assert none.returncode == 2 and "evaluated twice" in none.stderr.splitlines()[-1]
