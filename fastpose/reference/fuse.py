"""HRNet's fused sum as the official network computes it, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Path(NamedTuple):
    """One addend of a row: 1x1 convolution, BatchNorm, nearest upsampling; or BatchNorm alone.

    x: (B, inputs, H / 2^l, W / 2^l) with a weight, l of 0 to 3; (B, C, H, W) without one.
    weight: (C, inputs, 1, 1) or (C, inputs), or None where `x` already is the output of a convolution.
    gamma, beta: (C,) of the BatchNorm, or None for 1 and 0.
    mean, var: (C,) statistics to normalise with; None takes those of the batch.
    """

    x: Tensor
    weight: Tensor | None
    gamma: Tensor | None = None
    beta: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None


class Row(NamedTuple):
    """One output: ReLU of `identity` (B, C, H, W), or of zero for None, plus all paths."""

    identity: Tensor | None
    paths: tuple[Path, ...]


class Statistics(NamedTuple):
    """Batch statistics of one path: mean and biased variance, (C,), without gradient, over how many pixels.

    `pixels` is a number, or a float64 tensor of one element where several processes took part.
    """

    mean: Tensor
    var: Tensor
    pixels: int | Tensor


class Fused(NamedTuple):
    outputs: list[Tensor]
    statistics: list[list[Statistics | None]]  # of each path of each row; None where `mean` was given


def fuse(rows: Sequence[Row], eps: float = 1e-5) -> Fused:
    """One output (B, C, H, W) for each row, in the dtype of its inputs; addends in the order given.

    Source: hrnet lib/models/pose_hrnet.py, HighResolutionModule.forward and Bottleneck.forward.
    """
    results = [_fuse_row(row, eps) for row in rows]
    return Fused([output for output, _ in results], [statistics for _, statistics in results])


def _fuse_row(row: Row, eps: float) -> tuple[Tensor, list[Statistics | None]]:
    total, statistics = row.identity, []
    if total is None and not row.paths:
        raise ValueError("rows: a row without identity and paths has no output")
    height = max(x.shape[2] for x in ([] if total is None else [total]) + [path.x for path in row.paths])
    for path in row.paths:
        z = path.x if path.weight is None else _convolve(path.x, path.weight)
        gamma, beta, mean, var = (None if v is None else v.to(vector_dtype(z)) for v in path[2:])
        statistics.append(_statistics(z.detach()) if mean is None else None)
        z = F.batch_norm(z, mean, var, gamma, beta, training=mean is None, eps=eps)
        if z.shape[2] != height:
            z = F.interpolate(z, scale_factor=height // z.shape[2], mode="nearest")
        total = z if total is None else total + z
    return torch.relu(total), statistics  # type: ignore[arg-type]


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight.to(x.dtype).flatten(1)[:, :, None, None])


def _statistics(z: Tensor) -> Statistics:
    var, mean = torch.var_mean(z.to(vector_dtype(z)), (0, 2, 3), correction=0)
    return Statistics(mean, var, z.numel() // z.shape[1])


def vector_dtype(z: Tensor) -> torch.dtype:
    """Of what is computed per channel for such an image: float32, or float64."""
    return torch.promote_types(z.dtype, torch.float32)
