"""No order of hashes or folders decides anything: tools give the same under any."""

import os
import re
import shutil

import timm
import torch
from conftest import run_anew
from tiny_run import OPTIONS, demo_config

# Put before all by Python itself where it is on the path.
REVERSED_FOLDERS = """
import os
listdir, scandir = os.listdir, os.scandir
os.listdir = lambda *path: sorted(listdir(*path), reverse=True)

class Reversed(list):
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    def __next__(self):
        self.rest = iter(self) if not hasattr(self, "rest") else self.rest
        return next(self.rest)
    def close(self):
        pass

os.scandir = lambda *path: Reversed(sorted(scandir(*path), key=lambda e: e.name, reverse=True))
"""


def test_tools_give_the_same_under_any_order_of_hashes_and_folders(demo_datasets, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(REVERSED_FOLDERS)
    damaged = tmp_path / "damaged"
    shutil.copytree(demo_datasets, damaged, symlinks=True)
    for kind in ("leftImg8bit/val", "gtFine/val"):
        for path in sorted((damaged / "cityscapes" / kind).rglob("*.png"))[:4]:
            path.write_bytes(path.read_bytes()[:200])
    encoders = {
        f"module.{name}.{key}": tensor + number
        for number, name in enumerate(("encoder_k", "encoder_q"))
        for key, tensor in timm.create_model("test_resnet").state_dict().items()
    }
    torch.save({"state_dict": encoders}, tmp_path / "moco.pth")
    said, weights = [], []
    for seed, path in (("0", ""), ("1", str(tmp_path))):
        order = {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": path + ":" + os.environ.get("PYTHONPATH", ""),
        }
        check = run_anew("check_datasets.py", "--read", "--config-file", demo_config("pppc"),
                         DETECTRON2_DATASETS=str(damaged), **order)  # fmt: skip
        output = tmp_path / f"run {seed}"
        run = run_anew("train_net.py", "--config-file", demo_config("pppc"), "OUTPUT_DIR", output, *OPTIONS,
                       "SOLVER.MAX_ITER", "2", "SOLVER.BASE_LR", "1e-9", "MODEL.WEIGHTS",
                       tmp_path / "moco.pth", "SEED", "1", "DATALOADER.NUM_WORKERS", "0",
                       DETECTRON2_DATASETS=str(demo_datasets), **order)  # fmt: skip
        assert run.returncode == 0, run.stderr
        log = re.findall(r"moco.pth: .*|Recognized as .*", (output / "log.txt").read_text())
        said.append((check.stdout, check.stderr, log))
        weights.append(torch.load(output / "model_final.pth", weights_only=True)["model"])
    assert len(said[0][2]) == 2 and said[0] == said[1]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
