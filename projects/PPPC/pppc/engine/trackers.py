"""Scalars of a run to Weights & Biases and to MLflow, by their own libraries (TRACKERS)."""

import re
from abc import ABC, abstractmethod
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage


class Tracker(EventWriter, ABC):
    """Hands on each scalar's latest value, once for each iteration in which it was written.

    Args:
        cfg: the configuration, which the tracker records, too.
        start_iter: the first iteration that is trained.
    """

    def __init__(self, cfg: CfgNode, start_iter: int):
        self.last = start_iter - 1
        self.settings = yaml.safe_load(cfg.dump())
        self.name = Path(cfg.OUTPUT_DIR).resolve().name
        self.begin(Path(cfg.OUTPUT_DIR))

    @abstractmethod
    def begin(self, folder: Path) -> None:
        """Open the library's run; ``folder`` is the training's."""

    @abstractmethod
    def log(self, values: dict[str, float], iteration: int) -> None:
        """Hand on the scalars of an iteration."""

    def write(self) -> None:
        new: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(20).items():
            if iteration > self.last:
                new.setdefault(iteration, {})[name] = value
        for iteration, values in sorted(new.items()):
            self.log(values, iteration)
            self.last = iteration


class WandbTracker(Tracker):
    """Weights & Biases; the folder's name is the run's, and its project comes from WANDB_PROJECT."""

    def begin(self, folder: Path) -> None:
        import wandb

        self.run = wandb.init(name=self.name, dir=str(folder), config=self.settings)

    def log(self, values: dict[str, float], iteration: int) -> None:
        self.run.log(values, step=iteration)

    def close(self) -> None:
        self.run.finish()


class MlflowTracker(Tracker):
    """MLflow; where it writes to comes from MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME."""

    def begin(self, folder: Path) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.start_run(run_name=self.name)
        mlflow.log_dict(self.settings, "config.yaml")

    def log(self, values: dict[str, float], iteration: int) -> None:
        # Names of classes may hold other characters than it takes.
        named = {re.sub(r"[^\w\-. /]", "_", name): value for name, value in values.items()}
        self.mlflow.log_metrics(named, step=iteration)

    def close(self) -> None:
        self.mlflow.end_run()


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker}
