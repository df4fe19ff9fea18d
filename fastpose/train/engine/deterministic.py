"""The same bits from the same run on a GPU."""

from __future__ import annotations

import os

import torch

WORKSPACE = ":4096:8"


def make_deterministic() -> None:
    """From here on torch computes the same bits every time, on the same machine and versions of everything.

    On a CPU a run does so anyway, for a fixed number of threads. On a CUDA device cuDNN may otherwise choose
    convolutions by their speed of the moment, and add in an order that changes: the choice then falls on
    kernels that do not, which are slower, by how much depends on network and device. cuBLAS takes its
    workspace (8 buffers of 4 MiB) from CUBLAS_WORKSPACE_CONFIG, which it reads when it is first used: call
    this before anything is computed. An operation that has no deterministic form raises RuntimeError and
    names itself. torch.empty is left unfilled, since nothing of fastpose reads what nobody wrote.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
