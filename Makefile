# PYTHON: the interpreter (3.11 or 3.12) that the environment is made of.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV := .venv

.PHONY: help setup demo test clean

help:
	@echo "make demo    set up, make data, train source-only and PPPC, compare them (output/demo)"
	@echo "make test    set up, run the tests"
	@echo "make setup   only make the environment in $(VENV); PYTHON=... chooses the interpreter"
	@echo "make clean   remove $(VENV) and caches; results in output/ stay"

setup:
	@bash tools/setup_environment.sh "$(PYTHON)" $(VENV)

demo: setup
	@$(VENV)/bin/python -W ignore tools/run_demo.py

test: setup
	@$(VENV)/bin/python -m pytest tests

clean:
	rm -rf $(VENV) .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
