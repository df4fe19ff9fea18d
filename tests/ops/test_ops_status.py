"""op_status: what each operation would run, told by the rule it goes by."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastpose import _ext, backend
from fastpose.cli import main
from fastpose.errors import BackendUnavailableError
from fastpose.ops import gaussian_heatmaps, op_status

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = {"assign_joints", "decode_heatmaps", "fuse", "gaussian_heatmaps", "heatmap_loss", "warp_crops"}
NATIVE = {"assign_joints", "decode_heatmaps"}
ON_TRITON = OPERATIONS - NATIVE


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = backend.get_backend()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    yield
    backend._current = before


@pytest.mark.parametrize("name", backend.NAMES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_lists_every_operation(name: str, device: str) -> None:
    backend._current = name
    status = op_status(device)
    assert set(status) == OPERATIONS
    assert all(used in ("triton", "cpp", "reference", "none") and reason for used, reason in status.values())


@pytest.mark.parametrize("name", ["auto", "cpp"])
def test_triton_is_not_for_a_cpu(name: str) -> None:
    backend._current = name
    status = op_status()
    expected = "reference", "PyTorch is its implementation on cpu, triton needs CUDA"
    assert {status[operation] for operation in ON_TRITON} == {expected}


def test_reference_holds_for_all() -> None:
    backend._current = "reference"
    assert set(op_status().values()) == {("reference", "asked for")}


def test_triton_by_name_without_a_gpu_is_an_error_text() -> None:
    backend._current = "triton"
    status = op_status()
    for operation in ON_TRITON:
        used, reason = status[operation]
        assert used == "none"
        assert reason.startswith(f"triton: {operation}: ")
        assert "on cpu, Triton needs CUDA tensors" in reason
    joints = torch.zeros(1, 1, 2)
    with pytest.raises(BackendUnavailableError) as refusal:
        gaussian_heatmaps(joints, torch.ones(1, 1), heatmap_size=(4, 4), input_size=(16, 16))
    assert str(refusal.value) == status["gaussian_heatmaps"][1]


def test_triton_by_name_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    backend._current = "triton"
    status = op_status()
    assert {status[operation] for operation in ON_TRITON} == {("triton", "asked for")}


@pytest.mark.parametrize("name", ["auto", "triton"])
def test_without_triton(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: None if module == "triton" else find(module)
    )
    backend._current = name
    for operation, (used, reason) in op_status("cuda").items():
        if operation in ON_TRITON:
            assert used == ("reference" if name == "auto" else "none")
            assert "triton is not installed" in reason


def test_triton_runs_on_cuda_tensors() -> None:
    pytest.importorskip("triton")
    status = op_status("cuda")
    assert {status[operation] for operation in ON_TRITON} == {("triton", "the fastest that can run")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", "the fastest that can run"), ("triton", "the fastest that can run"), ("cpp", "asked for")],
)
@pytest.mark.parametrize("operation", sorted(NATIVE))
def test_compiled_operations_are_native_on_a_cpu(operation: str, name: str, expected: str) -> None:
    if _ext.missing("cpu"):
        pytest.skip(_ext.missing("cpu"))
    backend._current = name
    assert op_status()[operation] == ("cpp", expected)


@pytest.mark.parametrize("operation", sorted(NATIVE))
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_compiled_operations_without_the_extension(
    device: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ext, "load", lambda: (None, "no C++ compiler"))
    assert op_status(device)[operation] == ("reference", "no C++ compiler")
    backend._current = "cpp"
    used, reason = op_status(device)[operation]
    assert used == "none"
    assert reason.startswith(f"cpp: {operation}: no C++ compiler")


def printed_for_the_cpu(output: str, name: str) -> dict[str, tuple[str, str]]:
    lines = output.splitlines()
    start = lines.index(f"operations on cpu, backend {name}:") + 1
    rows = [line.split(maxsplit=2) for line in lines[start : start + len(OPERATIONS)]]
    return {operation: (used, reason) for operation, used, reason in rows}


@pytest.mark.parametrize("name", backend.NAMES)
def test_env_prints_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    backend._current = name
    assert main(["env"]) == 0
    assert printed_for_the_cpu(capsys.readouterr().out, name) == op_status()


def test_env_survives_a_backend_that_cannot_run() -> None:
    settings = {**os.environ, "FASTPOSE_BACKEND": "triton"}
    command = [sys.executable, "-m", "fastpose", "env"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    printed = printed_for_the_cpu(done.stdout, "triton")
    assert {printed[operation][0] for operation in ON_TRITON} == {"none"}
