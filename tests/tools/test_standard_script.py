"""Detectron2's own way of working, with the installed package alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from tiny_run import OPTIONS

# The train_net.py of Detectron2's projects; the lines with "test" are this test's.
SCRIPT = """
import sys

import pppc
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor, default_argument_parser, default_setup, launch
from pppc.engine import Trainer


def setup(args):
    cfg = get_cfg()
    pppc.add_pppc_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args):
    torch.set_num_threads(1)  # test
    cfg = setup(args)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        results = Trainer.test(cfg, model)
        predictor = DefaultPredictor(cfg)  # test
        print("test shape", predictor(torch.zeros(64, 128, 3).numpy())["sem_seg"].shape)
        print("test mIoU", results["sem_seg"]["mIoU"])
        for resume in (False, True):  # test: the cell of a notebook, run again
            trainer = Trainer(cfg)
            trainer.resume_or_load(resume=resume)
            trainer.train()
        return results
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


if __name__ == "__main__":
    print("test package", pppc.__file__)
    parser = default_argument_parser()
    parser.set_defaults(config_file=pppc.get_config_file("demo_gta_to_cityscapes_pppc.yaml"))
    args = parser.parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("projects", "configs"):
        pattern = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=pattern)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "-w", str(source / "dist"), str(source)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (source / "dist").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    return site


def test_detectron2_s_own_script_runs_from_a_wheel_without_the_repository(
    installed, demo_datasets, tmp_path
):
    (tmp_path / "train_net.py").write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": str(installed), "DETECTRON2_DATASETS": str(demo_datasets), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def run(flags: list[str], *opts: str) -> subprocess.CompletedProcess:
        options = [*OPTIONS, "SOLVER.MAX_ITER", "2", "MODEL.DEVICE", "cpu", "VIS_PERIOD", "0"]
        return subprocess.run(
            [sys.executable, "train_net.py", *flags, *options, *opts],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    weights = ("MODEL.WEIGHTS", "run_2/model_final.pth")
    for folder, flags in (
        ("run_2", ["--num-gpus", "2", "--dist-url", "auto"]),
        ("run_1", ["--eval-only"]),
    ):
        ended = run(flags, *(weights if folder == "run_1" else ()), "OUTPUT_DIR", folder)
        assert ended.returncode == 0, ended.stderr
        assert f"test package {installed}" in ended.stdout
        assert (tmp_path / folder / "model_final.pth").is_file()
        # Messages of this project are where Detectron2's are.
        assert "pppc.checkpoints" in (tmp_path / folder / "log.txt").read_text()
    assert "test shape torch.Size([19, 64, 128])" in ended.stdout
    lines = map(json.loads, (tmp_path / "run_2/metrics.json").read_text().splitlines())
    (line,) = (line for line in lines if line["iteration"] == 1)
    assert f"test mIoU {line['sem_seg/mIoU']}" in ended.stdout
    # The same model by the installed command, in an empty folder.
    empty = tmp_path / "empty"
    empty.mkdir()
    (image, *_) = (demo_datasets / "cityscapes/leftImg8bit/val").rglob("*.png")
    command = ["predict", "--model", "../run_2", "--input", image, "--output", "out"]
    ended = subprocess.run(
        [sys.executable, installed / "bin/pppc", *command],
        cwd=empty, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0 and "1 predicted" in ended.stdout, ended.stdout + ended.stderr
    assert (empty / "out/predictions.csv").is_file()
