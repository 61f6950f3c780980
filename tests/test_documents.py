"""What the documents name exists."""

import re

import pytest
from conftest import REPOSITORY

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


def test_every_promise_names_a_test_that_there_is():
    text = (REPOSITORY / "docs/reliability.md").read_text()
    named = re.findall(r"`([a-z0-9_]+)::([a-z0-9_]+)`", text)
    promises = [line for line in text.splitlines() if line.startswith("| ")]
    promises = [line for line in promises if not line.startswith("| promise ")]
    assert len(promises) > 40 and all("::" in line for line in promises)
    for file, name in named:
        tests = (REPOSITORY / f"tests/test_{file}.py").read_text()
        assert f"def test_{name}(" in tests or f"def {name}(" in tests, f"{file}::{name}"
