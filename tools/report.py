#!/usr/bin/env python3
"""Write the report of runs; the same as `pppc report`."""

from pppc.cli.report import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
