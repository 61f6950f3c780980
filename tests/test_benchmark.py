"""The benchmark, by the command line, on a small network."""

import json

import pytest
from conftest import run_tool

SMALL = [
    "MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.WEIGHTS", "",
    "MODEL.PROBABILISTIC_HEAD.DIM", "16", "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", "16",
    "MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "[128,128]", "DATALOADER.NUM_WORKERS", "0",
    "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "128",
]  # fmt: skip


def benchmark(folder, what: str, *arguments: str) -> tuple[dict, str]:
    """The results as JSON, and what was printed."""
    run = run_tool(
        "benchmark.py", what, "--config-file", "configs/gta_to_cityscapes_pppc_mit_b5.yaml",
        "--rounds", "2", "--json", folder / "results.json", *SMALL, *arguments,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads((folder / "results.json").read_text()), run.stdout


def test_two_settings_of_the_step_side_by_side(tmp_path):
    results, table = benchmark(tmp_path, "training", "MODEL.RECOMPUTE", "none",
                               "--against", "MODEL.RECOMPUTE", "all")  # fmt: skip
    first, second = results["first"], results["second"]
    assert results["settings"]["second"][-1] == "all"
    stages = {name for name in first if name.startswith(("teacher ", "student "))}
    assert len(stages) == 6
    stages |= {"moving average", "prototypes", "mixing", "strong augmentation", "optimiser"}
    for setting in (first, second):
        assert 0 < sum(setting[name] for name in stages) <= 1.5 * setting["seconds"]
        assert setting["least"] <= setting["units"] <= setting["most"]
    memory, operations = "peak memory, tensors, GB", "operations, 10^12"
    assert second[memory] < first[memory] < first["peak memory, process, GB"]
    assert second[operations] > first[operations]
    assert len(results["ratios"]) == 2
    assert "| student source" in table and "Second over first" in table


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("training --data drawn", {"data", "units"}),
        ("inference", {"seconds"}),
        ("evaluation", {"waiting for the image", "class map, label, confusion matrix"}),
        ("loading", {"images per second"}),
    ],
)
def test_what_else_is_timed(what, expected, tmp_path):
    results, table = benchmark(tmp_path, *what.split())
    assert all(results["first"][name] > 0 for name in expected)
    assert all(name in table for name in expected)
