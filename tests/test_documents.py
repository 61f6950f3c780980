"""What the documents name exists."""

import re

from conftest import REPOSITORY


def test_every_promise_names_a_test_that_there_is():
    text = (REPOSITORY / "docs/reliability.md").read_text()
    named = re.findall(r"`([a-z0-9_]+)::([a-z0-9_]+)`", text)
    promises = [line for line in text.splitlines() if line.startswith("| ")]
    promises = [line for line in promises if not line.startswith("| promise ")]
    assert len(promises) > 40 and all("::" in line for line in promises)
    for file, name in named:
        tests = (REPOSITORY / f"tests/test_{file}.py").read_text()
        assert f"def test_{name}(" in tests or f"def {name}(" in tests, f"{file}::{name}"
