"""Some mutants of each kind; tools/research/fuzz_readers.py has 20,000."""

import warnings

import fuzz_readers
import pytest


@pytest.mark.parametrize("kind", fuzz_readers.kinds())
def test_changed_files_are_read_rightly_or_named_in_one_line(kind, tmp_path):
    content, name, wrong = fuzz_readers.kinds()[kind]
    (tmp_path / name).write_bytes(content)
    assert wrong(str(tmp_path / name), content) == ""  # as it is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of metadata
        results = [fuzz_readers.try_mutant(kind, 1, i, str(tmp_path)) for i in range(12)]
    assert [problem for _, problem in results if problem] == []


def test_another_reading_is_found(tmp_path, monkeypatch):
    reader = fuzz_readers.read_image
    monkeypatch.setattr(fuzz_readers, "read_image", lambda *a: reader(*a)[:, ::-1])
    results = {fuzz_readers.try_mutant("image BMP", 1, i, str(tmp_path)) for i in range(12)}
    assert ("wrong", "has other pixels than Pillow's") in results
