"""Class balance: shares that training counts and checkpoints hold, and the choice of a power."""

import re

import numpy as np
import pytest
import torch
from conftest import load_tool, run_tool
from PIL import Image
from pppc.checkpoints.trained_model import trained_model
from pppc.data import build_train_loader, class_frequencies
from pppc.engine import Trainer
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.errors import InputError
from tiny_run import run_folder, tiny_config

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


def test_shares_are_of_what_is_trained_on_and_a_power_is_chosen_on_the_rest(run, datasets_root):
    labels = sorted((datasets_root / "gta/labels").glob("*_labelTrainIds.png"))
    counts = np.zeros(256, int)
    for label in labels[::2]:
        counts += np.bincount(np.asarray(Image.open(label)).ravel(), minlength=256)
    shares = counts[:19] / counts[:19].sum()
    recorded = torch.load(run / "model_final.pth", weights_only=True)["model"]["class_shares"]
    assert recorded.numpy() == pytest.approx(shares, rel=1e-3)

    model = ("MODEL.WEIGHTS", str(run / "model_final.pth"))
    chosen = run_tool("choose_class_balance.py", "--config-file", run / "config.yaml", *model)
    assert chosen.returncode == 0, chosen.stderr[-3000:]
    table = {
        float(p): float(m) for p, m in re.findall(r"\| +([\d.]+) \| +([\d.]+) \|", chosen.stdout)
    }
    assert len(table) == 11 and "4 held-out images of gta_train" in chosen.stdout
    *_, advice = chosen.stdout.strip().splitlines()
    best = max(table, key=table.get)
    assert advice.split() == ["PPPC.CLASS_BALANCE.PREDICTION", str(best)]

    # With a configuration that knows nothing of the run; and the configuration's own shares win.
    for name, options, used in (
        ("plain", [*advice.split()], shares),
        ("own", [*advice.split(), "PPPC.CLASS_WEIGHTS.FREQUENCIES", [1 / 19] * 19], [1 / 19] * 19),
    ):
        cfg = tiny_config(run / name, *model, *options, method="source_only")
        assert trained_model(cfg).class_shares.numpy() == pytest.approx(np.array(used), rel=1e-3)


def test_a_run_goes_on_with_the_shares_that_it_counted(run):
    trainer = Trainer(tiny_config(run, *OPTS, "SOLVER.MAX_ITER", 3, method="source_only"))
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] == 2


def test_another_training_from_a_run_s_weights_counts_its_own_shares(run, datasets_root):
    options = ("MODEL.WEIGHTS", str(run / "model_final.pth"), "DATASETS.HELD_OUT", 0)
    trainer = Trainer(tiny_config(run.parent / "next", *OPTS, *options, method="source_only"))
    trainer.resume_or_load(resume=False)
    shares = trainer._trainer.segmentor.class_shares
    assert shares.tolist() == pytest.approx(class_frequencies(trainer.cfg))


def test_a_balance_without_shares_is_refused(datasets_root, tmp_path):
    options = ("PPPC.CLASS_BALANCE.PREDICTION", 0.4, "PPPC.CLASS_BALANCE.PSEUDO_LABELS", 0.5)
    weights = str(run_folder(tmp_path / "run") / "model_final.pth")
    content = torch.load(weights, weights_only=True)
    content["model"]["class_shares"].zero_()
    torch.save(content, weights)
    cfg = tiny_config(tmp_path / "other", *options, "MODEL.WEIGHTS", weights)
    with pytest.raises(InputError, match="the model has none: give them as PPPC.CLASS_WEIGHTS"):
        trained_model(cfg)
    # The same where a loop is built without the trainer, which would count them.
    model = Trainer.build_model(cfg)
    loader, optimizer = build_train_loader(cfg, 0), Trainer.build_optimizer(cfg, model)
    with pytest.raises(InputError, match="or set the keys of PPPC.CLASS_BALANCE to 0"):
        AdaptationLoop.from_config(cfg, model, loader, optimizer)
    cfg.PPPC.CLASS_WEIGHTS.FREQUENCIES = class_frequencies(cfg)
    assert trained_model(cfg).class_shares.any()
    model = Trainer.build_model(cfg)
    loop = AdaptationLoop.from_config(cfg, model, loader, optimizer)

    image = 255 * torch.rand(1, 3, 48, 64)
    plain = model.eval().teacher(image, embedding=False).logits.softmax(1)
    divided = plain / (model.class_shares.where(model.class_shares > 0, 1) ** 0.5).view(-1, 1, 1)
    balanced = loop.teacher_scores(image).softmax(1)
    torch.testing.assert_close(balanced, divided / divided.sum(1, keepdim=True))


def test_without_held_out_images_there_is_nothing_to_choose_on(run, monkeypatch):
    tool = load_tool("choose_class_balance.py")
    monkeypatch.setattr(
        "sys.argv", ["x", "--config-file", str(run / "config.yaml"), "DATASETS.HELD_OUT", "0"]
    )
    with pytest.raises(ValueError, match="train one with DATASETS.HELD_OUT 5"):
        tool.main()
