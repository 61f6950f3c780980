#!/usr/bin/env python3
"""Write the adapted model as ONNX or TorchScript; the same as `pppc export`."""

from pppc.cli.export import main
from pppc.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
