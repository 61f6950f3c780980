"""What ran: code, packages, settings, data, time and memory."""

from collections.abc import Sequence
from datetime import timedelta

from detectron2.config import CfgNode, get_cfg

from ..config.defaults import add_pppc_config, by_key
from ..data.catalog import list_records
from ..errors import InputError
from .runs import Run


def what_ran(run: Run) -> dict[str, str]:
    """Facts of a run, by what they are; those that were not recorded are left out."""
    facts: dict[str, str] = {"model": str(run.model)}
    last = max((line["iteration"] + 1 for line in run.metrics), default=0)
    facts["iterations"] = f"{last} of {run.settings.get('SOLVER.MAX_ITER')}"
    if (seconds := run.seconds) is not None and last:
        facts["training steps took"] = (
            f"{timedelta(seconds=round(seconds))}, {seconds / last:.3g} s each"
        )
    if (memory := run.last("memory_gib")) is not None:
        facts["memory at most"] = f"{memory:.2f} GiB"
    for start in run.starts[-1:]:
        facts["started"] = start["time"].replace("T", " ")
        facts["commit"] = start["commit"] or "not known: no git beside the code"
        facts["device"] = start["device"]
        facts["versions"] = ", ".join(
            f"{name} {version}" for name, version in start["versions"].items()
        )
    if len(run.starts) > 1:
        facts["went on from iteration"] = ", ".join(str(one["iteration"]) for one in run.starts[1:])
    facts["seed"] = str(run.settings.get("SEED"))
    return facts


def differing_settings(runs: Sequence[Run]) -> list[dict]:
    """Keys that a run has another value of than the default; first those in which runs differ."""
    cfg = get_cfg()
    add_pppc_config(cfg)
    # Dumped and read again, so that tuples and lists compare alike.
    defaults = dict(by_key(CfgNode.load_cfg(cfg.dump())))
    rows = []
    for key in sorted({key for run in runs for key in run.settings}):
        values = {run.name: run.settings.get(key, defaults.get(key)) for run in runs}
        if any(value != defaults.get(key) for value in values.values()):
            texts = {name: str(value) for name, value in values.items()}
            differs = len(set(texts.values())) > 1
            rows.append(
                {
                    "key": key,
                    "default": str(defaults.get(key, "")),
                    "values": texts,
                    "differs": differs,
                }
            )
    return sorted(rows, key=lambda row: not row["differs"])


def data_sets(run: Run) -> list[dict]:
    """The run's data sets: what they are for, and how many images they have here."""
    roles = {"source": "DATASETS.TRAIN", "target": "DATASETS.TARGET", "test": "DATASETS.TEST"}
    rows = []
    for role, key in roles.items():
        for name in run.settings.get(key) or ():
            try:
                images = len(list_records(name))
            except (InputError, OSError):
                images = None
            rows.append({"role": role, "name": name, "images": images})
    return rows
