"""fastpose.backend: choosing an implementation."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastpose import _ext, backend
from fastpose.errors import BackendUnavailableError, ConfigError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    before = backend.get_backend()
    yield
    backend._current = before


def test_set_and_use() -> None:
    backend.set_backend("reference")
    with backend.use_backend("auto"):
        assert backend.get_backend() == "auto"
    assert backend.get_backend() == "reference"


def test_use_restores_after_an_error() -> None:
    with pytest.raises(KeyError), backend.use_backend("reference"):  # noqa: PT012
        assert backend.get_backend() == "reference"
        raise KeyError
    assert backend.get_backend() == "auto"


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="backend: expected one of auto, triton, cpp, reference, got 'cuda'"):
        backend.set_backend("cuda")


def test_an_unavailable_backend_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ext, "load", lambda: (None, "no C++ compiler"))
    with pytest.raises(BackendUnavailableError, match="cpp: no C\\+\\+ compiler"), backend.use_backend("cpp"):
        pytest.fail("entered")
    assert backend.get_backend() == "auto"


@pytest.mark.parametrize(
    ("installed", "interpret", "device", "reason"),
    [
        (False, "1", True, "triton is not installed"),
        (True, "0", False, "no CUDA device"),
        (True, "1", False, ""),
        (True, "0", True, ""),
    ],
    ids=["not_installed", "no_device", "interpreted", "device"],
)
def test_triton_status(
    installed: bool, interpret: str, device: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device)
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    assert backend.backend_status()["triton"] == (reason == "", reason)


def test_status_names_every_backend() -> None:
    status = backend.backend_status()
    assert tuple(status) == backend.NAMES
    assert status["auto"] == status["reference"] == (True, "")
    assert status["cpp"][0] == (_ext.load()[0] is not None)


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_the_environment_is_read_at_start(name: str) -> None:
    code = "from fastpose import backend; print(backend.get_backend())"
    env = {**os.environ, "FASTPOSE_BACKEND": name}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == (name, "")


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTPOSE_BACKEND", "gpu")
    with pytest.raises(ConfigError, match="FASTPOSE_BACKEND='gpu': use one of auto, triton, cpp, reference"):
        backend._from_environment()


def test_a_fallback_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_logged", set())
    with caplog.at_level(logging.INFO, "fastpose"):
        for operation in ("a", "a", "b"):
            backend.log_fallback(operation, "because")
    assert caplog.messages == [f"{name}: using the PyTorch reference: because" for name in "ab"]
    assert {record.levelname for record in caplog.records} == {"INFO"}


def decide(backend_name: str, device: torch.device) -> bool:
    """The rule of an operation that Triton implements, on CUDA devices 0 and 1."""
    reason = "" if device.index in (None, 0, 1) else f"no {device}"
    if backend_name == "triton" and (device.type == "cpu" or reason):
        raise BackendUnavailableError(f"triton: blur: {reason or 'tensors are on cpu'}")
    if reason:
        backend.log_fallback("blur", reason)
    return backend_name != "reference" and device.type == "cuda" and not reason


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", "cuda", ("triton", "the fastest that can run")),
        ("triton", "cuda:1", ("triton", "asked for")),
        ("cpp", "cuda", ("triton", "the fastest that can run")),
        ("reference", "cuda", ("reference", "asked for")),
        ("auto", "cuda:7", ("reference", "no cuda:7")),
        ("triton", "cuda:7", ("none", "triton: blur: no cuda:7")),
        ("auto", "cpu", ("reference", "PyTorch is its implementation on cpu, triton needs CUDA")),
        ("triton", "cpu", ("none", "triton: blur: tensors are on cpu")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_op_status_goes_by_the_rule_of_the_operation(
    name: str,
    device: str,
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(backend, "_operations", {})
    monkeypatch.setattr(backend, "_logged", set())
    backend.register_operation("blur", "triton", decide)
    backend._current = name
    with caplog.at_level(logging.INFO, "fastpose"):
        assert backend.op_status(device) == {"blur": expected}
    assert not caplog.messages  # asking is not falling back
    assert not backend._logged
    backend.log_fallback("blur", "later")
    assert backend._logged == {("blur", "later")}
