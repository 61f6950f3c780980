#!/usr/bin/env python3
"""Train and evaluate; the same as `pppc train`."""

from pppc.cli.train import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
