"""The examples in docstrings give what they say, and every public name of the method has one."""

import doctest
import inspect
import pkgutil
from importlib import import_module

import pppc
import pytest

MODULES = [name for _, name, _ in pkgutil.walk_packages(pppc.__path__, "pppc.")]
WITH_EXAMPLES = [name for name in MODULES if ">>>" in inspect.getsource(import_module(name))]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pppc.method.")])
def test_every_public_name_of_the_method_has_an_example(name):
    module = import_module(name)
    public = {
        n: v
        for n, v in vars(module).items()
        if getattr(v, "__module__", "") == name and n[0] != "_"
    }
    assert not [n for n, value in public.items() if callable(value) and ">>>" not in value.__doc__]
