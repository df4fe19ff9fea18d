"""Fixtures every test may use, and the kernel report at the end of a run."""

from pathlib import Path
from typing import Any

import kernel_report
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def shared_path(*parts: str) -> Path:
    """A file of the shared test material, or a skip that says what is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared test material is not here: {'/'.join(parts)}")
    return path


@pytest.fixture(scope="session")
def golden_functions() -> dict[str, np.ndarray]:
    """Arrays computed by the official HRNet data and post-processing functions."""
    with np.load(shared_path("golden", "functions.npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(42)
    np.random.seed(42)  # noqa: NPY002 (the global state is what is being pinned)


@pytest.fixture(autouse=True)
def _poison() -> None:
    """torch.empty and its kin hold NaN, so an output that nobody wrote cannot pass for a result."""
    torch.use_deterministic_algorithms(True, warn_only=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of `pytest -n` hands its part of the kernel report over."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["kernels"] = kernel_report.records


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    kernel_report.add_records(getattr(node, "workeroutput", {}).get("kernels", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = kernel_report.report_lines()
    if lines:
        terminalreporter.section("kernel resources: registers/spilled bytes/bytes of shared memory")
        for line in lines:
            terminalreporter.write_line(line)
