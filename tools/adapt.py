#!/usr/bin/env python3
"""Adapt a model to your own images; the same as `pppc adapt`."""

from pppc.cli.adapt import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
