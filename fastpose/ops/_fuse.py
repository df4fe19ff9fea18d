"""fuse: HRNet's exchange and the ends of residual blocks, 1x1 convolutions and BatchNorms in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose._checks import check_device, check_shape, check_tensor
from fastpose.backend import get_backend, register_operation
from fastpose.errors import BackendUnavailableError
from fastpose.ops._triton import runs_on_triton
from fastpose.ops.fuse_autograd import fuse_by_moments
from fastpose.reference import fuse as reference
from fastpose.reference.fuse import Fused, Row

MAX_LEVEL = 3
"""A path is at most 2^3 times coarser than the output."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fuse(rows: Sequence[Row], *, eps: float = 1e-5, group: Any = None) -> Fused:
    """ReLU of identity + sum of upsample(BatchNorm(1x1 convolution)) + sum of BatchNorm, for every row.

    On a GPU one kernel writes each output and no addend is ever stored: the batch statistics of a 1x1
    convolution follow from the mean and the covariance of its input (docs/ops/fuse.md). Rows that read the
    same tensor object share that work. Differentiable once; nothing waits for the device.

    Args:
        rows: what to add, see `Row` and `Path`. The images are (B, C, H, W), float32, bfloat16 or float16,
            all alike, channels_last for speed. A path with a weight may be 1, 2, 4 or 8 times coarser than
            its row. Weights, gammas and betas may have another dtype; vectors are computed in float32.
        eps: of every BatchNorm.
        group: torch.distributed group whose processes share the batch statistics, as SyncBatchNorm does.

    Returns:
        Fused(outputs, statistics): one (B, C, H, W) a row, and the batch statistics of every path for the
        running averages, without gradient; None where a path gives its own `mean` and `var`.

    Raises:
        ValueError, TypeError: an argument is wrong; sizes that do not fit are both named.
        BackendUnavailableError: the backend `triton` was asked for and cannot take these tensors.

    Source: hrnet lib/models/pose_hrnet.py, HighResolutionModule.forward and Bottleneck.forward.
    """
    check_rows(rows)
    x = _images(rows[0])[0]
    by_kernels = fuse_runs_on_triton(get_backend(), x.device.type, x.dtype)
    if by_kernels or (group is not None and x.device.type == "cpu"):
        return fuse_by_moments(rows, eps, group)
    if group is not None:
        raise BackendUnavailableError(
            f"fuse: statistics of several processes need the Triton kernels for {x.dtype} on {x.device}; "
            "without them use the layers and SyncBatchNorm"
        )
    return reference.fuse(rows, eps)


@torch.compiler.assume_constant_result  # the answer is the same for the life of the process
def fuse_runs_on_triton(backend: str, device_type: str, dtype: torch.dtype) -> bool:
    """Whether the kernels take such tensors; raises BackendUnavailableError where they must and cannot."""
    refusal = "" if dtype in _DTYPES else f"there is no kernel for {dtype}"
    return runs_on_triton("fuse", "tensors", backend, device_type, refusal)


def check_rows(rows: Sequence[Row]) -> None:
    """TypeError or ValueError naming the first thing in `rows` that cannot be."""
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    first: Tensor | None = None
    for i, row in enumerate(rows):
        images = _images(row)
        if not images:
            raise ValueError(f"rows[{i}]: expected an identity or a path, got neither")
        for image in images:
            check_tensor(f"rows[{i}]", image, 4)
            first = image if first is None else first
            check_device(f"rows[{i}]", image, first.device)
            if image.dtype != first.dtype:
                raise TypeError(f"rows[{i}]: expected {first.dtype} like the others, got {image.dtype}")
        _check_row(f"rows[{i}]", row)


def _images(row: Row) -> list[Tensor]:
    identity = [] if row.identity is None else [row.identity]
    return identity + [path.x for path in row.paths]


def _check_row(name: str, row: Row) -> None:
    for path in row.paths:
        if path.weight is not None:
            check_tensor(f"{name}.weight", path.weight, 4 if getattr(path.weight, "ndim", 4) != 2 else 2)
            check_device(f"{name}.weight", path.weight, path.x.device)
    images = _images(row)
    height, width = max(image.shape[2] for image in images), max(image.shape[3] for image in images)
    batch = images[0].shape[0]
    widths = [] if row.identity is None else [row.identity.shape[1]]
    widths += [path.x.shape[1] if path.weight is None else path.weight.shape[0] for path in row.paths]
    for path in row.paths:
        _check_level(name, path, (batch, height, width))
        if path.weight is not None:
            last = (1, 1) if path.weight.ndim == 4 else ()
            check_shape(f"{name}.weight", path.weight, (widths[0], path.x.shape[1], *last))
        for vector_name in ("gamma", "beta", "mean", "var"):
            vector = getattr(path, vector_name)
            if vector is not None:
                check_tensor(f"{name}.{vector_name}", vector, 1)
                check_device(f"{name}.{vector_name}", vector, path.x.device)
                check_shape(f"{name}.{vector_name}", vector, (widths[0],))
        if (path.mean is None) != (path.var is None):
            raise ValueError(f"{name}: mean and var: give both, or neither for those of the batch")
    if len(set(widths)) > 1:
        raise ValueError(f"{name}: expected addends of equal width, got {widths} channels")
    if row.identity is not None and row.identity.shape != (batch, widths[0], height, width):
        raise _misfit(name, tuple(row.identity.shape), (batch, widths[0], height, width))


def _check_level(name: str, path: reference.Path, size: tuple[int, int, int]) -> None:
    batch, height, width = size
    own = path.x.shape
    factors = [2**level for level in range(MAX_LEVEL + 1)] if path.weight is not None else [1]
    fits = (own[0] == batch) and any((own[2] * f, own[3] * f) == (height, width) for f in factors)
    if not fits:
        raise _misfit(name, tuple(own), (batch, path.x.shape[1], height, width))


def _misfit(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"{name}: an addend of shape {got} does not fit the output's {expected}: expected the same batch and "
        "the same size, or for a 1x1 path exactly 1/2, 1/4 or 1/8 of it"
    )


register_operation(
    "fuse", "triton", lambda backend, device: fuse_runs_on_triton(backend, device.type, torch.float32)
)
