"""The study tool, by the command line; and that the documents show what it reports."""

import json
import shutil
import subprocess

import pytest
import yaml
from conftest import REPOSITORY, load_tool, run_tool
from study_run import loss_by_tenth
from tiny_run import OPTIONS


def run_study(path, root, *arguments, error=""):
    study = run_tool("research/study.py", path, "--output", path.parent / "runs", *arguments,
                     DETECTRON2_DATASETS=str(root))  # fmt: skip
    assert bool(study.returncode) == bool(error), study.stderr[-3000:]
    if error:
        assert error in study.stderr.splitlines()[-1]
    return study.stdout


AGAIN = ["DATALOADER.NUM_WORKERS", "1"]


def test_a_study_runs_what_is_missing_and_nothing_else(demo_datasets, tmp_path):
    config = "configs/demo_gta_to_cityscapes_{}.yaml"
    content = {
        "seeds": [4],
        "reference": "Source",
        "opts": [*OPTIONS, "SOLVER.MAX_ITER", "4"],
        "pretraining": {"config": config.format("source_only")},
        "rows": {
            "Source": {"config": config.format("source_only")},
            "DACS": {"config": config.format("dacs")},
        },
        # Tested as it is, a run is not tested again.
        "evaluations": {"again": {"opts": AGAIN}, "the same": {}},
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    output = run_study(path, demo_datasets)
    assert "2 runs are missing" in output
    names = sorted(file.name for file in (tmp_path / "tiny").iterdir())
    assert names == ["dacs-4.json", "pretraining.json", "source-4.json"]
    score = {name: json.loads((tmp_path / "tiny" / name).read_text()) for name in names}
    dacs = score["dacs-4.json"]
    assert dacs["settings"]["PPPC.CONTRAST.ENABLED"] == "False"
    assert dacs["settings"]["MODEL.WEIGHTS"].endswith("tiny/pretraining/model_final.pth")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.strip()
    assert dacs["commit"].rstrip("+") == commit and dacs["seed"] == 4
    assert 0 <= dacs["mIoU"] <= 100 and 0 <= dacs["IoU-road"] <= 100
    assert min(dacs["losses"]) > 0
    difference = f"{dacs['mIoU'] - score['source-4.json']['mIoU']:+.1f}"
    assert [cell.strip() for cell in output.splitlines()[-1].split("|")][4] == difference

    assert "0 runs are missing" in run_study(path, demo_datasets)
    assert dacs["evaluations"] == {
        "again": {"weights": "model_final.pth", "opts": AGAIN, "mIoU": dacs["mIoU"]}
    }
    # What is asked for later is added without training again.
    balance = {"weights": "model_selected.pth", "opts": ["PPPC.CLASS_BALANCE.PREDICTION", 1.0]}
    content["evaluations"]["balanced"] = balance
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "runs/tiny/dacs-4/metrics.json").unlink()
    *_, source_row, dacs_row = run_study(path, demo_datasets).splitlines()
    found = {
        name: json.loads((tmp_path / "tiny" / f"{name}-4.json").read_text())["evaluations"]
        for name in ("source", "dacs")
    }
    balanced = {name: evaluations["balanced"]["mIoU"] for name, evaluations in found.items()}
    assert found["dacs"]["again"] == dacs["evaluations"]["again"]
    assert balanced["dacs"] != dacs["mIoU"]
    assert f"| {balanced['source']:.1f} " in source_row
    assert f"| {balanced['dacs'] - balanced['source']:+.1f} " in dacs_row
    del content["evaluations"]
    # In a fresh clone there are results but no weights to go on from.
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "tiny/dacs-4.json").unlink()
    assert "1 runs are missing" in run_study(path, demo_datasets)
    assert json.loads((tmp_path / "tiny/dacs-4.json").read_text())["mIoU"] == dacs["mIoU"]

    content["rows"]["DACS"]["opts"] = ["PPPC.TEACHER.MOMENTUM", 0.5]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    stale = run_study(path, demo_datasets, "--report").splitlines()[-1]
    assert [cell.strip() for cell in stale.split("|")][1:3] == ["DACS", f"{dacs['mIoU']:.1f} *"]
    # The folder of the older run is not taken for one of the new settings, nor overwritten.
    run_study(path, demo_datasets, error="model_final.pth is of other settings")


@pytest.mark.parametrize("use", ["never", "auto"])
def test_what_nothing_reads_is_no_setting(use, tmp_path):
    study_run = load_tool("research/study_run.py")
    key = "PPPC.IMAGENET_PROTOTYPES"
    opts = (f"{key}.USE", use, f"{key}.PREDICTION", "True")
    run = study_run.Run(
        "row", 1, "configs/demo_gta_to_cityscapes_dacs.yaml", opts, {}, tmp_path, tmp_path
    )
    assert (f"{key}.PREDICTION" in run.settings()) == (use == "auto")


def test_losses_are_told_by_tenths_and_how_flat_they_are(tmp_path):
    study = load_tool("research/study.py")
    assert loss_by_tenth([3.0]) == [3.0]
    losses = loss_by_tenth([float(n) for n in range(40, 0, -2)])
    assert losses == [39, 35, 31, 27, 23, 19, 15, 11, 7, 3]
    config = {"config": "configs/demo_gta_to_cityscapes_source_only.yaml"}
    content = {"seeds": [1, 2, 3], "reference": "one", "rows": {"one": config}}
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "made").mkdir()
    for seed, found in ((1, losses), (2, [2.0, 1.0]), (3, [5.0])):
        result = {"mIoU": 1.0, "seconds_per_iteration": 0.1, "settings": {}, "losses": found}
        (tmp_path / f"made/one-{seed}.json").write_text(json.dumps(result))
    row = study.Study(path, tmp_path).report().splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")][7:9] == ["0.46", "0.10"]  # (3/7 + 1/2) / 2
