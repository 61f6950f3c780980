"""Scalars to Weights & Biases and MLflow; both are stand-ins here, with the calls of theirs that are used."""

import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage
from pppc.engine import Trainer
from pppc.errors import InputError
from tiny_run import tiny_config


def test_each_scalar_is_handed_on_once_with_its_iteration(tmp_path, monkeypatch):
    calls = []

    def said(name):
        return lambda *values, **named: calls.append((name, *values, named))

    run = SimpleNamespace(log=said("wandb.log"), finish=said("wandb.finish"))
    wandb = SimpleNamespace(init=lambda **named: calls.append(("wandb.init", named)) or run)
    names = ("start_run", "log_dict", "log_metrics", "end_run")
    mlflow = SimpleNamespace(**{name: said(name) for name in names})
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    (tmp_path / "my run").mkdir()
    cfg = tiny_config(tmp_path / "my run", "TRACKERS", ["wandb", "mlflow"])
    trainer = SimpleNamespace(cfg=cfg, start_iter=3, max_iter=6)
    trackers = Trainer.build_writers(trainer)[-2:]
    started = {name: named for name, *_, named in calls}
    assert started["wandb.init"]["name"] == started["start_run"]["run_name"] == "my run"
    assert started["wandb.init"]["config"]["SOLVER"]["MAX_ITER"] == 6
    assert next(call for call in calls if call[0] == "log_dict")[2] == "config.yaml"
    calls.clear()
    with EventStorage(2) as storage:
        storage.put_scalar("before", 1.0)  # of the run that this one goes on from
        storage.step()
        storage.put_scalar("sem_seg/IoU-<b>", 40.0)
        for _ in range(2):
            for tracker in trackers:
                tracker.write()
        storage.step()
        storage.put_scalar("loss", 0.5)
        for tracker in trackers:
            tracker.write()
            tracker.close()
    assert [call for call in calls if call[0].startswith("wandb")] == [
        ("wandb.log", {"sem_seg/IoU-<b>": 40.0}, {"step": 3}),
        ("wandb.log", {"loss": 0.5}, {"step": 4}),
        ("wandb.finish", {}),
    ]
    assert [call for call in calls if not call[0].startswith("wandb")] == [
        ("log_metrics", {"sem_seg/IoU-_b_": 40.0}, {"step": 3}),
        ("log_metrics", {"loss": 0.5}, {"step": 4}),
        ("end_run", {}),
    ]


def test_a_tracker_that_is_not_installed_is_named_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("pppc.config.checks.find_spec", lambda name: None)
    with pytest.raises(InputError, match="mlflow is not installed: pip install mlflow"):
        Trainer(tiny_config(tmp_path, "TRACKERS", ["mlflow"]))
