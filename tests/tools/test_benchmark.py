"""The benchmark, by the command line, on a small network."""

import json
import re

import pytest
import torch
from benchmark import Stages, operations, process_memory, read_settings, tensor_memory
from conftest import REPOSITORY, run_tool
from estimate import estimate
from pppc.errors import InputError

CONFIG = "configs/gta_to_cityscapes_pppc_mit_b5.yaml"

SMALL = [
    "MODEL.TIMM.NAME", "mit_b0", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.WEIGHTS", "",
    "MODEL.PROBABILISTIC_HEAD.DIM", "16", "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", "16",
    "MODEL.DEVICE", "cpu", "INPUT.CROP.SIZE", "[128,128]", "DATALOADER.NUM_WORKERS", "0",
    "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "128",
]  # fmt: skip


def benchmark(folder, what: str, *arguments: str, **environment: str) -> tuple[dict, str]:
    """The results as JSON, and what was printed."""
    run = run_tool(
        "research/benchmark.py", what, "--config-file", CONFIG, "--rounds", "2",
        "--json", folder / "results.json", *SMALL, *arguments, **environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads((folder / "results.json").read_text()), run.stdout


def test_two_settings_of_the_step_side_by_side(tmp_path):
    results, table = benchmark(
        tmp_path, "training", "MODEL.RECOMPUTE", "none", "--against", "MODEL.RECOMPUTE", "encoder"
    )
    first, second = results["first"], results["second"]
    assert results["settings"]["second"][-1] == "encoder"
    stages = {name for name in first if name.startswith(("teacher ", "student "))}
    assert len(stages) == 6
    stages |= {"moving average", "prototypes", "mixing", "strong augmentation", "optimizer"}
    for setting in (first, second):
        assert all(setting[stage] > 0 for stage in stages)
        assert setting["least"] <= setting["units"] <= setting["most"]
    assert len(results["ratios"]) == 2
    assert "| student source" in table and "Second over first" in table


def test_recomputation_takes_less_memory_and_more_operations():
    none, encoder = (
        read_settings("training", str(REPOSITORY / CONFIG), [*SMALL, "MODEL.RECOMPUTE", what])
        for what in ("none", "encoder")
    )
    assert tensor_memory(encoder) < tensor_memory(none) < process_memory(none)
    assert operations(encoder) > operations(none)


def test_what_a_step_takes_is_estimated_from_smaller_crops():
    def said_of(tool: str, *words: str) -> str:
        # Each in a process of its own: the profiler counts what others have left.
        command = (tool, *words, "--config-file", CONFIG, *SMALL, "INPUT.CROP.SIZE", "[224,224]")
        run = run_tool(*command)
        assert run.returncode == 0, run.stderr[-3000:]
        return run.stdout

    # With class shares, which a training would count.
    need = ("research/benchmark.py", "training", "--need", "peak memory, tensors, GB",
            "PPPC.CLASS_BALANCE.PSEUDO_LABELS", "0.5")  # fmt: skip
    lines = said_of("estimate.py").splitlines()
    rows = [re.split(" {2,}", line) for line in lines[2:5]]
    assert [row[:2] for row in rows] == [
        ["128x128", "measured"], ["160x160", "measured"], ["224x224", "estimated"],
    ]  # fmt: skip
    assert float(rows[2][2]) == pytest.approx(float(said_of(*need)), rel=0.03)
    assert re.search(r"^40000 iterations on cpu: [\d.]+ hours$", lines[-1])
    with pytest.raises(InputError, match="need no estimate"):
        small = [*SMALL, "INPUT.CROP.SIZE", "[64,64]"]
        estimate(read_settings("training", str(REPOSITORY / CONFIG), small))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("evaluation", {"waiting for the image", "class map, label, confusion matrix"}),
        ("loading", {"images per second"}),
    ],
)
def test_what_else_is_timed(what, expected, demo_datasets, tmp_path):
    results, table = benchmark(tmp_path, what, DETECTRON2_DATASETS=str(demo_datasets))
    assert all(results["first"][name] > 0 for name in expected)
    assert all(name in table for name in expected)


def test_what_a_step_needs_is_of_one_setting():
    run = run_tool("research/benchmark.py", "training", "--need", "operations, 10^12",
                   "--config-file", CONFIG, "--against", "SOLVER.AMP.ENABLED", "True")  # fmt: skip
    assert run.returncode == 2 and "--need is of one setting of training" in run.stderr


def test_a_stage_within_another_counts_for_itself_alone(monkeypatch):
    class Work:
        size = 3

        def outer(self):
            clock.append(clock[-1] + 2)
            self.inner()

        def inner(self):
            clock.append(clock[-1] + 5)

    clock, work, stages = [0.0], Work(), Stages(torch.device("cpu"))
    monkeypatch.setattr(stages, "now", lambda: clock[-1])
    stages.watch(work, "inner", "inside")
    stages.watch(work, "outer", "around")
    work.outer()
    work.inner()
    assert stages.take() == {"around": 2, "inside": 10} and stages.take() == {}
