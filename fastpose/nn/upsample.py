"""The sum of a map and another of half its size: what hourglass and pyramid networks join scales with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample_add(skip: Tensor, low: Tensor) -> Tensor:
    """skip (B, C, 2h, 2w) plus low (B, C, h, w) enlarged twofold by nearest neighbour.

    The same bits as `skip + F.interpolate(low, scale_factor=2)`, but the enlarged map is never stored: one
    pass reads both and writes the sum, 2.25 times the bytes of `skip` instead of 4.25. Under torch.compile
    the two operators stay as they are, since its code generation joins them. Any dtype, device and memory
    format; the result has that of `skip`.

    Raises:
        ValueError: `skip` is not exactly twice as large as `low`, with the same batch and channels.
    """
    _check(skip, low)
    if torch.compiler.is_compiling():
        return skip + F.interpolate(low, scale_factor=2.0, mode="nearest")
    if torch.is_grad_enabled() and (skip.requires_grad or low.requires_grad):
        return _UpsampleAdd.apply(skip, low)
    return _broadcast_add(skip, low)


class _UpsampleAdd(torch.autograd.Function):
    """Autograd's own backward of a broadcast sums strided dimensions, many times slower than a pooling."""

    generate_vmap_rule = True

    @staticmethod
    def forward(skip: Tensor, low: Tensor) -> Tensor:
        return _broadcast_add(skip, low)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        return grad, F.avg_pool2d(grad, 2, divisor_override=1) if ctx.needs_input_grad[1] else None


def _broadcast_add(skip: Tensor, low: Tensor) -> Tensor:
    """Splitting a dimension in two is a view in every memory format, and so is joining the two again."""
    height, width = low.shape[2:]
    pairs = skip.unflatten(3, (width, 2)).unflatten(2, (height, 2))
    return (pairs + low[:, :, :, None, :, None]).flatten(4, 5).flatten(2, 3)


def _check(skip: Tensor, low: Tensor) -> None:
    if skip.ndim == low.ndim == 4:
        batch, channels, height, width = low.shape
        if tuple(skip.shape) == (batch, channels, 2 * height, 2 * width):
            return
    raise ValueError(
        f"skip must be (B, C, 2h, 2w) for low (B, C, h, w), got {tuple(skip.shape)} and {tuple(low.shape)}"
    )
