#!/usr/bin/env python3
"""Say which target images to label next; the same as `pppc rank`."""

from pppc.cli.rank import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
