"""What the documents name exists."""

import re

import pytest
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pppc.data.train_ids import LABEL_SPACES

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


def test_own_data_sets_are_registered_as_the_document_says(tmp_path, monkeypatch):
    text = (REPOSITORY / "datasets/README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for folder in ("train/images", "train/masks", "target"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        Image.new("RGB" if folder != "train/masks" else "L", (8, 6), 0).save(
            tmp_path / "mine" / folder / "a.png"
        )
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    before = set(DatasetCatalog.list())
    try:
        exec(code, {})
        (record,) = DatasetCatalog.get("mine_train")
        assert record["sem_seg_file_name"].endswith("mine/train/masks/a.png")
        assert len(DatasetCatalog.get("mine_target_unlabeled")) == 1
    finally:
        for name in set(DatasetCatalog.list()) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        LABEL_SPACES.pop("mine", None)


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
