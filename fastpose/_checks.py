"""Checks of arguments: TypeError and ValueError that name the argument and say what was got."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_tensor(name: str, value: object, ndim: int) -> None:
    """`value` is a floating-point tensor of `ndim` dimensions."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if not value.dtype.is_floating_point:
        raise TypeError(f"{name}: expected a floating-point tensor, got {value.dtype}")
    if value.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} dimensions, got shape {tuple(value.shape)}")


def check_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(value.shape)}")


def check_device(name: str, value: Tensor, device: torch.device) -> None:
    if value.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {value.device}")


def check_no_grad(name: str, value: Tensor) -> None:
    """For operations without a derivative, which would cut the graph in silence."""
    if torch.is_grad_enabled() and value.requires_grad:
        raise ValueError(
            f"{name}: requires grad, but this has no derivative; pass {name}.detach() or use no_grad()"
        )
