"""Types of the arguments that targets and losses share; their values are the reference's to check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_WHOLE = (int, np.integer, torch.SymInt)
_REAL = (*_WHOLE, float, np.floating, torch.SymFloat)


def check_tensors(**values: object) -> None:
    """TypeError naming the first of `values` that is not a tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")


def check_sizes(**values: object) -> None:
    """TypeError naming the first of `values` that is not a sequence of integers."""
    for name, size in values.items():
        if not isinstance(size, Sequence) or isinstance(size, str):
            raise TypeError(f"{name}: expected (width, height), got {type(size).__name__}")
        for cells in size:
            if isinstance(cells, bool) or not isinstance(cells, _WHOLE):
                raise TypeError(f"{name}: expected two integers (width, height), got {size!r}")


def check_sigma(sigma: object) -> None:
    """TypeError unless `sigma` is a number; True is none."""
    if isinstance(sigma, bool) or not isinstance(sigma, _REAL):
        raise TypeError(f"sigma: expected a number of heatmap cells, got {sigma!r}")


def check_topk_type(topk: object) -> None:
    """TypeError unless `topk` is an integer or None; True is neither."""
    if topk is not None and (isinstance(topk, bool) or not isinstance(topk, _WHOLE)):
        raise TypeError(f"topk: expected an integer or None, got {topk!r}")
