#!/usr/bin/env python3
"""Predict images and videos with a trained model; the same as `pppc predict`."""

from pppc.cli.predict import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
