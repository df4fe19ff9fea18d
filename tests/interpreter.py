"""Runs a snippet in a fresh Python with Triton's interpreter on: it must be before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import torch

HEAD = """
import sys, torch
torch.use_deterministic_algorithms(True, warn_only=True)  # fills torch.empty with NaN, as conftest does
inputs = torch.load(sys.argv[1], weights_only=True)
"""
TAIL = "\ntorch.save(outputs, sys.argv[2])\n"


def run_interpreted(body: str, inputs: object, folder: Path) -> object:
    """`body` reads `inputs` and sets `outputs`, both made of tensors and plain containers."""
    torch.save(inputs, folder / "inputs.pt")
    paths = [str(folder / "inputs.pt"), str(folder / "outputs.pt")]
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HEAD + body + TAIL, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "outputs.pt", weights_only=True)
