"""Class balance from the command line: shares that training counts, and the choice of a power."""

import re

import numpy as np
import pytest
import torch
import yaml
from conftest import load_tool, run_tool
from PIL import Image
from pppc.engine import Trainer
from tiny_run import tiny_config

# Every second source image is held out.
OPTS = ("DATASETS.HELD_OUT", 2, "PPPC.CLASS_BALANCE.TRAINING", 0.3, "SOLVER.MAX_ITER", 2,
        "TEST.EVAL_PERIOD", 0, "VIS_PERIOD", 0, "DATASETS.TEST", "()")  # fmt: skip


@pytest.fixture
def run(datasets_root, tmp_path):
    """The folder of a source-only run, with held-out images."""
    trainer = Trainer(tiny_config(tmp_path / "run", *OPTS, method="source_only"))
    trainer.resume_or_load(resume=False)
    trainer.train()
    return tmp_path / "run"


def test_shares_are_counted_on_what_is_trained_on_and_a_power_is_chosen_on_the_rest(
    run, datasets_root
):
    labels = sorted((datasets_root / "gta/labels").glob("*_labelTrainIds.png"))
    counts = np.zeros(256, int)
    for label in labels[::2]:
        counts += np.bincount(np.asarray(Image.open(label)).ravel(), minlength=256)
    shares = counts[:19] / counts[:19].sum()
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    assert recorded["PPPC"]["CLASS_WEIGHTS"]["FREQUENCIES"] == pytest.approx(shares, rel=1e-3)

    model, config = (
        ("MODEL.WEIGHTS", run / "model_final.pth"),
        ("--config-file", run / "config.yaml"),
    )
    chosen = run_tool("choose_class_balance.py", *config, *model)
    assert chosen.returncode == 0, chosen.stderr[-3000:]
    table = {
        float(p): float(m) for p, m in re.findall(r"\| +([\d.]+) \| +([\d.]+) \|", chosen.stdout)
    }
    assert len(table) == 11 and "4 held-out images of gta_train" in chosen.stdout
    *_, advice = chosen.stdout.strip().splitlines()
    best = max(table, key=table.get)
    assert advice.split()[:2] == ["PPPC.CLASS_BALANCE.PREDICTION", str(best)]
    evaluated = run_tool("train_net.py", "--eval-only", *config, *model, *advice.split(),
                         "DATASETS.TEST", "('cityscapes_val',)")  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]


def test_a_run_goes_on_with_the_shares_that_it_counted(run):
    trainer = Trainer(tiny_config(run, *OPTS, "SOLVER.MAX_ITER", 3, method="source_only"))
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] == 2


def test_without_held_out_images_there_is_nothing_to_choose_on(run, monkeypatch, capsys):
    tool = load_tool("choose_class_balance.py")
    monkeypatch.setattr(
        "sys.argv", ["x", "--config-file", str(run / "config.yaml"), "DATASETS.HELD_OUT", "0"]
    )
    with pytest.raises(ValueError, match="train one with DATASETS.HELD_OUT 5"):
        tool.main()
