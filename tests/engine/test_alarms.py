"""Runs that go wrong, and what is said while they do."""

import json

import pppc
import pytest
import torch
from pppc.engine import Trainer
from pppc.engine.alarms import ALARMS, class_alarms
from pppc.errors import InputError
from tiny_run import run_folder, tiny_config

# An alarm looks at a tenth of the run: here at single steps.
TEN = ("SOLVER.MAX_ITER", 10, "VIS_PERIOD", 0, "DATASETS.TEST", "()", "TEST.EVAL_PERIOD", 5,
       "PPPC.CONTRAST.START_ITER", 0, "SOLVER.WARMUP_ITERS", 0)  # fmt: skip
TRAIN = 16  # the train ID that no label of the demo's source shows


def train(folder, *opts, only_class=None) -> list[dict]:
    """The lines of metrics.json of a run; ``only_class`` is all that it predicts at first."""
    trainer = Trainer(tiny_config(folder, *TEN, *opts))
    trainer.resume_or_load(False)
    if only_class is not None:
        trainer._trainer.segmentor.student.sem_seg_head.classifier[1].bias.data[only_class] = 100
    trainer.train()
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def sounded(metrics: list[dict]) -> set[str]:
    return {name for name in ALARMS if any(line.get(f"alarm/{name}") for line in metrics)}


def test_what_trains_nothing_is_said_and_the_advice_works(datasets_root, tmp_path, caplog):
    # The crop is the whole image, so that all candidates are one; no pixel can be so sure.
    wrong = train(
        tmp_path / "wrong", "PPPC.SELF_TRAINING.THRESHOLD", 1.0, "PPPC.CONTRAST.TEMPERATURE", 1e4,
        "INPUT.CROP.SIZE", [64, 128], "PPPC.AMBIGUITY_CROP.CRITERION", "class_variance",
        "SOLVER.BASE_LR", 0.3, "PPPC.TEACHER.MOMENTUM", 0.99,
    )  # fmt: skip
    expected = {
        "no_confident_pixel",
        "contrast_without_gradient",
        "crop_by_chance",
        "teacher_apart",
    }
    assert expected <= sounded(wrong)
    for name in expected:
        line = next(one for one in caplog.messages if one.startswith(f"Alarm {name} in "))
        assert line.endswith(ALARMS[name])
    right = train(
        tmp_path / "right", "PPPC.SELF_TRAINING.THRESHOLD", 0.05, "PPPC.CONTRAST.TEMPERATURE", 0.1,
        "PPPC.AMBIGUITY_CROP.CRITERION", "random", "PPPC.TEACHER.MOMENTUM", 0.0,
    )  # fmt: skip
    assert not expected & sounded(right)


def test_a_model_that_loses_its_classes_is_not_selected(datasets_root, tmp_path, caplog):
    """All is one class, which the source lacks; the source-only model stays the selected one."""
    source_only = run_folder(tmp_path / "source_only", method="source_only")
    opts = ("TEST.SELECTION.SOURCE_MODEL", str(source_only), "SOLVER.BASE_LR", 1e-9)
    metrics = train(tmp_path / "run", *opts, only_class=TRAIN)
    expected = {"few_classes", "class_vanished", "class_grown", "class_unknown_to_source"}
    assert expected <= sounded(metrics)
    for line in (
        "class_unknown_to_source in training: train has 100 %",
        "class_vanished in evaluation: the model's ",
    ):
        assert f"Alarm {line}" in caplog.text
    last = {name: value for line in metrics for name, value in line.items()}
    assert last["selection/iteration"] == -1 and last["selection/odd_classes"] > 2
    assert last["selection/ensemble_agreement"] == 100  # most votes are its own
    image = next((datasets_root / "cityscapes").rglob("*leftImg8bit.png"))
    selected, given = (
        pppc.load(path) for path in (tmp_path / "run/model_selected.pth", source_only)
    )
    assert torch.equal(selected(str(image))["sem_seg"], given(str(image))["sem_seg"])
    # Resumed, the run still knows the source-only model's classes.
    trainer = Trainer(tiny_config(tmp_path / "run", *TEN, *opts, "SOLVER.MAX_ITER", 12))
    trainer.resume_or_load(True)
    trainer.train()
    assert trainer.selection.selected == -1 and len(trainer.selection.candidates) == 4


def test_a_source_model_that_does_not_fit_is_refused_before_training(datasets_root, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        Trainer(tiny_config(tmp_path / "run", *TEN, "TEST.SELECTION.SOURCE_MODEL", "nowhere"))
    source_only = run_folder(tmp_path / "source_only", method="source_only")
    opts = ("TEST.SELECTION.SOURCE_MODEL", str(source_only))
    trainer = Trainer(tiny_config(tmp_path / "run", *TEN, *opts))
    trainer.selection.alarms.names = ["road", "tram"]
    with pytest.raises(InputError, match="has the classes road, .*, this run road, tram: give"):
        trainer.selection.load_source_model(trainer.cfg)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("shares", "source", "model", "expected"),
    [
        # Vessels of retinal photographs, in the labels and as a source-only model predicts them.
        ([1.0, 0.0], [0.88, 0.12], [0.906, 0.094], {"few_classes", "class_vanished"}),
        ([0.98, 0.02], [0.88, 0.12], [0.906, 0.094], {"class_vanished"}),
        ([0.94, 0.06], [0.88, 0.12], [0.906, 0.094], set()),
        ([0.97, 0.03], [0.88, 0.12], None, set()),  # with one witness a tenth is enough
        ([0.98, 0.02], [0.88, 0.12], None, {"few_classes"}),
        ([0.995, 0.005], [0.88, 0.12], None, {"few_classes", "class_vanished"}),
        ([0.6, 0.4], [0.88, 0.12], [0.906, 0.094], {"class_grown"}),
        ([0.6, 0.4], [0.88, 0.12], None, set()),
        # What the source-only model predicts by mistake may go; what is rare anyway, too.
        ([0.6, 0.395, 0.005], [0.6, 0.395, 0.005], [0.5, 0.35, 0.15], set()),
        ([0.6, 0.4, 0.0], [0.6, 0.396, 0.004], None, set()),
        ([0.6, 0.38, 0.02], [0.6, 0.4, 0.0], None, {"class_unknown_to_source"}),
    ],
)
def test_shares_that_are_odd(shares, source, model, expected):
    found = class_alarms(
        torch.tensor(shares), torch.tensor(source), None if model is None else torch.tensor(model)
    )
    assert set(found) == expected
