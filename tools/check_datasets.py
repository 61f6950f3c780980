#!/usr/bin/env python3
"""Say which data sets are there, whole and consistent; the same as `pppc check`."""

from pppc.cli.check import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
