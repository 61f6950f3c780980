"""What the documents name exists."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_model
from PIL import Image
from pppc.config.defaults import KEYS, by_key
from pppc.data.catalog import own_reader
from pppc.data.train_ids import LABEL_SPACES
from pppc.method.gaussian import SCORES
from pppc.pixel_batch import PixelBatch
from tiny_run import tiny_config

DOCUMENTS = [path for path in REPOSITORY.glob("**/*.md") if ".venv" not in path.parts]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_commands_to_tools(document):
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in link and not link.startswith("mailto:"):
            assert (document.parent / link).exists(), link
    for path in re.findall(r"\b(?:tools|configs|tests)/[\w./-]+\.(?:py|yaml|sh)\b", text):
        if not path.startswith(("configs/FILE", "tests/FILE")):
            assert (REPOSITORY / path).exists(), path


def test_the_step_trains_with_one_s_own_network_and_loader():
    text = (REPOSITORY / "docs/step.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    definitions, training = code.split("loop.train(0, 3)")
    torch.manual_seed(0)
    names = {}
    exec(definitions, names)
    before = [parameter.detach().clone() for parameter in names["student"].parameters()]
    exec("loop.train(0, 3)" + training, names)
    losses = {k: v for k, (v, _) in names["loop"].storage.latest().items() if "loss" in k}
    assert len(losses) == 7 and all(map(math.isfinite, losses.values())), losses
    assert losses["loss_contrast_source"] > 0 and losses["loss_contrast_target"] > 0
    after = names["student"].parameters()
    assert not any(new.equal(old) for new, old in zip(after, before) if old.dim() > 1)


def test_own_data_sets_are_registered_as_the_document_says(tmp_path, monkeypatch):
    text = (REPOSITORY / "datasets/README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for folder in ("train/images", "train/masks", "target"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        Image.new("RGB" if folder != "train/masks" else "L", (8, 6), 0).save(
            tmp_path / "mine" / folder / "a.png"
        )
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = set(DatasetCatalog.list())
    try:
        for code in blocks:
            exec(code, {})
        assert own_reader("mine_train_2").class_names == ("road", "vehicle")
        (record,) = DatasetCatalog.get("mine_train")
        assert record["sem_seg_file_name"].endswith("mine/train/masks/a.png")
        assert len(DatasetCatalog.get("mine_target_unlabeled")) == 1
    finally:
        for name in set(DatasetCatalog.list()) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        LABEL_SPACES.pop("mine", None)


def test_a_decoder_and_a_score_are_added_as_the_document_says(monkeypatch):
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    decoder, score = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr(SEM_SEG_HEADS_REGISTRY, "_obj_map", dict(SEM_SEG_HEADS_REGISTRY._obj_map))
    exec(decoder, {"__name__": "own"})
    try:
        exec(score, {})
        cfg = tiny_config(Path("nowhere"), "MODEL.SEM_SEG_HEAD.NAME", "LinearHead",
                          "PPPC.CONTRAST.SCORE", "negative_distance")  # fmt: skip
        segmentor = build_model(cfg)
        label = torch.zeros(1, 48, 64, dtype=torch.int64)
        losses = segmentor(PixelBatch(255 * torch.rand(1, 3, 48, 64), label), contrast_scale=1.0)
        assert all(loss.isfinite() for loss in losses.values())
    finally:
        SCORES.pop("negative_distance", None)


def test_every_promise_names_a_test_that_there_is():
    text = (REPOSITORY / "docs/reliability.md").read_text()
    named = re.findall(r"`([a-z0-9_]+)::([a-z0-9_]+)`", text)
    promises = [line for line in text.splitlines() if line.startswith("| ")]
    promises = [line for line in promises if not line.startswith("| promise ")]
    assert len(promises) > 40 and all("::" in line for line in promises)
    for file, name in named:
        (path,) = (REPOSITORY / "tests").rglob(f"test_{file}.py")
        tests = path.read_text()
        assert f"def test_{name}(" in tests or f"def {name}(" in tests, f"{file}::{name}"


def test_the_site_builds_and_has_every_page_and_key(tmp_path):
    """Strictly: a broken link, a reference to nothing or a page that no menu has is an error."""
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        REPOSITORY / "docs",
        tmp_path,
    ]
    outcome = subprocess.run(command, text=True, capture_output=True)
    assert outcome.returncode == 0, outcome.stderr
    page = (tmp_path / "configuration.html").read_text()
    keys = KEYS.keys() & dict(by_key(tiny_config(Path("nowhere")))).keys()
    assert not [key for key in keys if f">{key}</span>" not in page]
