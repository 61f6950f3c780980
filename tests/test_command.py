"""The command ``pppc``, and what its doctor says of an environment with something missing."""

import sys
from importlib import import_module

import pppc_command
import pytest
from pppc_command import doctor


def ends_with(monkeypatch, *arguments: str) -> int | None:
    monkeypatch.setattr(sys, "argv", ["pppc", *arguments])
    with pytest.raises(SystemExit) as end:
        pppc_command.main()
    return end.value.code


def test_every_command_is_there_and_a_wrong_one_is_one_line(monkeypatch, capsys):
    for name in pppc_command.COMMANDS:
        package = "pppc_command" if name == "doctor" else "pppc.cli"
        assert callable(import_module(f"{package}.{name}").main)
    assert ends_with(monkeypatch, "trian") == 2
    assert capsys.readouterr().err.startswith("error: there is no command 'trian': give one of ")
    assert ends_with(monkeypatch, "check", "--help") == 0
    assert "\n    pppc check gta_train ... " in capsys.readouterr().out


def test_the_doctor_names_what_is_missing_and_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["no-such-package>=2", "numpy<1", "onnx; extra == 'a'"]
    )
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-encoder": "weights"})
    monkeypatch.setitem(sys.modules, "detectron2", None)  # its import fails
    assert ends_with(monkeypatch, "doctor") == 1
    printed = capsys.readouterr().out
    assert "PROBLEM  no-such-package is missing: pip install 'no-such-package>=2'\n" in printed
    assert "pip install 'numpy<1'\n" in printed and "pip install no-such-encoder\n" in printed
    assert "Install Detectron2: pip install --no-build-isolation" in printed
    assert "3 to mend\n" in printed and "onnx" not in printed
