"""Whether an operation may run on Triton."""

from __future__ import annotations

import importlib.util
import os

import torch

from fastpose.backend import log_fallback
from fastpose.errors import BackendUnavailableError


@torch.compiler.assume_constant_result  # the answer is the same for the life of the process
def runs_on_triton(operation: str, tensor: str, backend: str, device_type: str, refusal: str = "") -> bool:
    """Whether the backend and the device allow Triton for `operation`; `auto` logs why not.

    Args:
        tensor: its argument that is on `device_type`.
        refusal: why this operation cannot take these tensors, if it cannot.

    Raises:
        BackendUnavailableError: the backend is `triton` and Triton cannot run.
    """
    if backend == "reference":
        return False
    reason = refusal
    if importlib.util.find_spec("triton") is None:
        reason = "triton is not installed"
    elif device_type != "cuda" and not interpreting():
        reason = f"{tensor} are on {device_type}, Triton needs CUDA tensors"
    if backend == "triton":
        if reason:
            raise BackendUnavailableError(f"triton: {operation}: {reason}; use the backend auto")
        return True
    if device_type != "cuda":
        return False  # on a CPU the reference is the implementation, and the interpreter only a test
    if reason:
        log_fallback(operation, reason)
    return not reason


def interpreting() -> bool:
    """Triton's interpreter stands in for a GPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"
