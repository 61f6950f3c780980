#!/usr/bin/env python3
"""Say how far the target is from the source; the same as `pppc compare`."""

from pppc.cli.compare import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
