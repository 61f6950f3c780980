"""What a variance can be fitted to: that each fit finds what is in the features, and the whole tool."""

import pytest
import torch
from conftest import load_tool, run_tool
from tiny_run import OPTIONS, demo_config, run_folder

TOOL = load_tool("research/variance_candidates.py")


@pytest.mark.parametrize("name", TOOL.CANDIDATES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_each_candidate_finds_the_feature_that_tells_errors(name, batch_norm):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 6, generator=generator)
    difficulty = 2 * features[:, 3] - features[:, 1]
    easy = torch.sigmoid(-difficulty)
    wrong = (torch.rand(4000, generator=generator) > easy).float()
    label = torch.randint(3, (4000,), generator=generator)
    # Surely right where it is easy, surely wrong elsewhere.
    scores = 3 * torch.nn.functional.one_hot((label + wrong.long()) % 3, 3).float()
    positions = {
        "features": features, "label": label, "scores": scores, "wrong": wrong, "disagreement": wrong,
        "distance": torch.exp(difficulty), "margin": -difficulty, "probability": easy,
    }  # fmt: skip
    say = TOOL.fit(positions, TOOL.CANDIDATES[name][1], steps=300, batch_norm=batch_norm)
    best = TOOL.auroc(difficulty.numpy(), positions)
    assert TOOL.auroc(say(positions), positions) > best - 10 > 75


def test_the_table_has_every_candidate(tmp_path, demo_datasets):
    run = tmp_path / "run"
    train = ("train_net.py", "--config-file", demo_config("pppc"), *OPTIONS, "OUTPUT_DIR", run)
    trained = run_tool(*train, "DATASETS.HELD_OUT", 4, DETECTRON2_DATASETS=str(demo_datasets))
    assert trained.returncode == 0, trained.stderr[-2000:]
    tool = run_tool("research/variance_candidates.py", run, "--batches", 2, "--steps", 2,
                    DETECTRON2_DATASETS=str(demo_datasets))  # fmt: skip
    assert tool.returncode == 0, tool.stderr[-2000:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tool.stdout.splitlines()]
    found = {row[0]: row[1:] for row in rows[-10:]}
    assert list(found) == [
        "softmax's entropy", "log-variance as trained", *TOOL.CANDIDATES, "all of them", TOOL.CEILING
    ]  # fmt: skip
    assert all(0 < float(cell) < 100 for cells in found.values() for cell in cells if cell)
    few = run_folder(tmp_path / "few", "DATASETS.HELD_OUT", 8)
    refused = run_tool("research/variance_candidates.py", few, "--batches", 1,
                       DETECTRON2_DATASETS=str(demo_datasets))  # fmt: skip
    assert refused.returncode == 2
    assert "has 1 held-out source and 3 test images" in refused.stderr.splitlines()[-1]
    refused = run_tool(
        "research/variance_candidates.py", run_folder(tmp_path / "dacs", method="dacs")
    )
    assert refused.returncode == 2 and "has no contrast" in refused.stderr.splitlines()[-1]
