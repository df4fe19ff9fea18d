"""Which implementation of the operations runs: auto, triton, cpp or reference.

`auto` takes the fastest one that can run and falls back to the PyTorch reference with one line of log.
`triton` and `cpp` name the implementation of the operations that have it, and never fall back; the other
operations stay on auto. `reference` holds for all. The choice belongs to the whole process: make it before
starting threads and data workers. FASTPOSE_BACKEND sets it at start.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastpose import _ext
from fastpose.errors import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    import torch

NAMES = ("auto", "triton", "cpp", "reference")
_log = logging.getLogger("fastpose")
_logged: set[tuple[str, str]] = set()
_operations: dict[str, tuple[str, Callable[[str, torch.device], bool]]] = {}
_overheard: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("overheard", default=None)


def _from_environment() -> str:
    name = os.environ.get("FASTPOSE_BACKEND", "auto")
    if name not in NAMES:
        raise ConfigError(f"FASTPOSE_BACKEND={name!r}: use one of {', '.join(NAMES)}")
    return name


_current = _from_environment()  # a plain global, because torch.compile guards it


def get_backend() -> str:
    """Name of the backend in use."""
    return _current


def set_backend(name: str) -> None:
    """Chooses the backend for the whole process.

    Raises:
        ValueError: `name` is not one of `NAMES`.
        BackendUnavailableError: it cannot run on this machine; the message says why.
    """
    global _current
    if name not in NAMES:
        raise ValueError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
    available, reason = backend_status()[name]
    if not available:
        raise BackendUnavailableError(f"{name}: {reason}; `auto` would use what there is")
    _current = name


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """`with use_backend("reference"): ...`, then the backend before is back. Raises as `set_backend`."""
    global _current
    before = _current
    set_backend(name)
    try:
        yield
    finally:
        _current = before


def backend_status() -> dict[str, tuple[bool, str]]:
    """name -> (available, reason), the reason empty where there is nothing to explain."""
    return {
        "auto": (True, ""),
        "triton": _as_status(_triton_missing()),
        "cpp": _cpp_status(),
        "reference": (True, ""),
    }


def register_operation(name: str, fast: str, decide: Callable[[str, torch.device], bool]) -> None:
    """Makes an operation known to `op_status`.

    Args:
        fast: the backend that implements it beside the reference, triton or cpp.
        decide: the rule the operation itself goes by: backend asked for, device -> whether `fast` runs; tells
            `log_fallback` why not, or raises BackendUnavailableError.
    """
    _operations[name] = fast, decide


def op_status(device: str | torch.device = "cpu") -> dict[str, tuple[str, str]]:
    """What would run on `device` with the backend in use: operation -> (backend, why).

    The backend is `none` where the operation would raise BackendUnavailableError, and why is its text. Only
    operations of imported modules are known; `fastpose.ops.op_status` is this one with all of them.
    """
    import torch

    return {name: _status_of(name, torch.device(device)) for name in _operations}


def _status_of(operation: str, device: torch.device) -> tuple[str, str]:
    fast, decide = _operations[operation]
    reasons: dict[str, str] = {}
    token = _overheard.set(reasons)
    try:
        runs = decide(_current, device)
    except BackendUnavailableError as error:
        return "none", str(error)
    finally:
        _overheard.reset(token)
    name = fast if runs else "reference"
    if name == _current:
        return name, "asked for"
    if runs:
        return name, "the fastest that can run"
    return name, reasons.get(operation, f"PyTorch is its implementation on {device.type}, {fast} needs CUDA")


def log_fallback(operation: str, reason: str) -> None:
    """Says once for each operation and reason that `auto` uses the reference."""
    overheard = _overheard.get()
    if overheard is not None:
        overheard[operation] = reason
    elif (operation, reason) not in _logged:
        _logged.add((operation, reason))
        _log.info("%s: using the PyTorch reference: %s", operation, reason)


def _as_status(reason: str) -> tuple[bool, str]:
    return not reason, reason


def _cpp_status() -> tuple[bool, str]:
    """Available wherever the CPU code is; the reason then says what keeps it from CUDA tensors."""
    module, reason = _ext.load()
    return module is not None, reason or _ext.missing("cuda") or _cuda_missing()


def _triton_missing() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    return _cuda_missing()


def _cuda_missing() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"
