# The interpreter (3.11 or 3.12) that the environment is made with; empty: the first on the path.
PYTHON ?=
VENV := .venv
# Processes that share the tests.
JOBS ?= auto

.PHONY: help setup demo test check docs clean

help:
	@echo "make demo    set up, make data, train source-only and PPPC, compare them (output/demo)"
	@echo "make test    set up, run the tests"
	@echo "make check   set up, look at form and types (ruff, mypy)"
	@echo "make docs    set up, build the documents' site in output/docs"
	@echo "make setup   only make the environment in $(VENV), or complete it"
	@echo "make clean   remove $(VENV) and caches; results in output/ stay"
	@echo "PYTHON=...   after any of these: the Python 3.11 or 3.12 that the environment is made with"

setup:
	@bash tools/setup_environment.sh "$(PYTHON)" $(VENV)

demo: setup
	@$(VENV)/bin/python -W ignore tools/run_demo.py

test: setup
	@$(VENV)/bin/python -m pytest -rs -n $(JOBS) --dist loadfile tests

check: setup
	@$(VENV)/bin/ruff check projects tools tests docs setup.py
	@$(VENV)/bin/ruff format --check projects tools tests docs setup.py
	@$(VENV)/bin/mypy

docs: setup
	@$(VENV)/bin/sphinx-build -q -W --keep-going docs output/docs && echo output/docs/index.html

clean:
	rm -rf $(VENV) .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
