"""Limits of the benchmark rows: what an operation, a network or a training step cannot do without."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.roofline.schemes import work
from bench.roofline.trace import trace
from bench.rows import Limit
from fastpose.reference.fuse import Path, Row

DECODED_BYTES = 13  # of a map: two coordinates and a score in float32, and whether it is valid


def network_limit(
    model: nn.Module,
    size: tuple[int, int],
    *,
    training: bool,
    batch: int,
    dtype: torch.dtype,
    scheme: str = "d",
) -> Limit:
    """Of a forward pass or a training step, with weights and optimizer; by default the floor, scheme d.

    Args:
        model: takes (B, 3, H, W). size: (width, height) in pixels.
        dtype: of the activations, and of the weights that the convolutions read.
    """
    step = work(trace(model, size), scheme, training=training, batch=batch, dtype=dtype)
    return Limit(step.total_bytes, step.flops() * batch, dtype=_name(dtype))


def fuse_limit(rows: Sequence[Row], direction: str) -> Limit:
    """Of `fastpose.ops.fuse` as docs/ops/fuse.md passes over its images; matrices and vectors count nothing.

    Args:
        rows: tensors on any device, also meta; passes that share one read it once.
        direction: `eval` (statistics given), `forward` (statistics of the batch) or `backward`.

    Raises:
        ValueError: `direction` is none of these.
    """
    if direction not in ("eval", "forward", "backward"):
        raise ValueError(f"direction: expected eval, forward or backward, got {direction!r}")
    images = [row.identity for row in rows if row.identity is not None]
    images += [path.x for row in rows for path in row.paths]
    total, macs = _fuse_backward(rows) if direction == "backward" else _fuse_forward(rows, direction)
    return Limit(total, 2 * macs, dtype=_name(images[0].dtype))


def heatmap_limit(joints: Tensor, heatmap_size: tuple[int, int]) -> Limit:
    """Of `fastpose.ops.gaussian_heatmaps`: joints (B, K, 2) and a float32 flag a joint in, float32 maps out.

    heatmap_size: (width, height).
    """
    maps = joints.shape[0] * joints.shape[1]
    pixels = maps * heatmap_size[0] * heatmap_size[1]
    return Limit(_bytes(joints) + 4 * maps + 4 * pixels + 4 * maps, traffic="write")


def loss_limit(pred: Tensor, joints: Tensor, passes: str) -> Limit:
    """Of `fastpose.ops.heatmap_loss` of `pred` (B, K, H, W), with targets drawn on the way.

    Args:
        passes: `forward` (reads `pred`), `backward` (reads it again and writes the gradient), or `both` in
            one pass, which OHKM can do too: the maps of one sample fit on one multiprocessor.

    Raises:
        ValueError: `passes` is none of these.
    """
    factors = {"forward": 1, "backward": 2, "both": 2}
    if passes not in factors:
        raise ValueError(f"passes: expected one of {', '.join(factors)}, got {passes!r}")
    per_joint = _bytes(joints) + 4 * pred.shape[0] * pred.shape[1]
    traffic = "read" if passes == "forward" else "copy"
    return Limit(factors[passes] * _bytes(pred) + per_joint, traffic=traffic)


def decode_limit(heatmaps: Tensor, flipped: bool = False) -> Limit:
    """Of `fastpose.ops.decode_heatmaps` of (B, K, H, W): every map read once, 13 bytes a map written."""
    maps = heatmaps.shape[0] * heatmaps.shape[1]
    return Limit((2 if flipped else 1) * _bytes(heatmaps) + DECODED_BYTES * maps, traffic="read")


def _fuse_forward(rows: Sequence[Row], direction: str) -> tuple[int, int]:
    """Bytes and multiply-adds: the statistics of every image that needs them, then a pass for each row."""
    total = macs = 0
    if direction == "forward":
        for x in _distinct([path.x for row in rows for path in row.paths if path.mean is None]):
            weighted = any(path.x is x and path.weight is not None for row in rows for path in row.paths)
            total += _bytes(x)
            macs += x.numel() * x.shape[1] if weighted else 0
    for row in rows:
        addends = [path.x for path in row.paths] + ([] if row.identity is None else [row.identity])
        total += sum(_bytes(x) for x in _distinct(addends)) + _output_bytes(row)
        macs += sum(_macs(path) for path in row.paths)
    return total, macs


def _fuse_backward(rows: Sequence[Row]) -> tuple[int, int]:
    """Bytes and multiply-adds: rows, sources for their weights, sources for themselves, images."""
    total = macs = 0
    for row in rows:
        whole, images = _output_bytes(row), [path.x for path in row.paths if path.weight is None]
        pooled = {_gradient_bytes(path) for path in row.paths if path.weight is not None} - {whole}
        total += 3 * whole + sum(_bytes(x) for x in images) + sum(pooled)  # gradient, output; masked, pools
        total += (whole if images else 0) + 2 * sum(_bytes(x) for x in images)
    for x in _distinct([path.x for row in rows for path in row.paths if path.weight is not None]):
        readers = [path for row in rows for path in row.paths if path.x is x and path.weight is not None]
        gradients = sum(_gradient_bytes(path) for path in readers)
        own = _bytes(x) if any(row.identity is x for row in rows) else 0
        total += (gradients + _bytes(x)) + (gradients + _bytes(x) + own + _bytes(x))
        macs += 2 * sum(_macs(path) for path in readers) + x.numel() * x.shape[1]
    return total, macs


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _output_bytes(row: Row) -> int:
    """Of the row's output: that of its finest addend, as wide as they all are."""
    if row.identity is not None:
        return _bytes(row.identity)
    return max(_gradient_bytes(path) for path in row.paths)


def _gradient_bytes(path: Path) -> int:
    """Of the gradient of the sum at the resolution of the path."""
    channels = path.x.shape[1] if path.weight is None else path.weight.shape[0]
    return _bytes(path.x) // path.x.shape[1] * channels


def _macs(path: Path) -> int:
    return 0 if path.weight is None else path.x.numel() * path.weight.shape[0]
