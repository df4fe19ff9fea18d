"""Copies of one network in several processes: their gradients, their running statistics, their agreement."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from fastpose.errors import ConfigError
from fastpose.nn.capture import capture_stream

_PARAMETERS = inspect.signature(DistributedDataParallel.__init__).parameters
_NO_BUFFERS: Any = {
    "forward_sync_buffers" if "forward_sync_buffers" in _PARAMETERS else "broadcast_buffers": False
}
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def replicate(
    model: nn.Module,
    device: torch.device,
    *,
    weight: float | None = None,
    sync_bn: bool = False,
    bucket_mb: float = 25.0,
) -> DistributedDataParallel:
    """`model` whose backward pass leaves the mean gradient of all processes in every one of them.

    Gradients travel in buckets of `bucket_mb` while the backward pass goes on, and live in the buckets.
    Buffers are not broadcast: running statistics are averaged where somebody reads them (`average_buffers`).
    Every parameter takes part in every step, so neither a search for unused ones nor static_graph is needed.

    Args:
        weight: what this process's mean gradient counts, of 1 in all; None for all alike.
        sync_bn: BatchNorm over the samples of all processes, by nn.SyncBatchNorm; changes `model`;
            ConfigError on the CPU.
    """
    if sync_bn:
        if device.type != "cuda":
            raise ConfigError("train.sync_bn: nn.SyncBatchNorm needs CUDA devices; set train.sync_bn=false")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    on_cuda = device.type == "cuda"
    # Its accumulators belong to the stream on which it is made, and a captured step needs them on its own.
    where = torch.cuda.stream(capture_stream(device)) if on_cuda else contextlib.nullcontext()
    with where:
        parallel = DistributedDataParallel(
            model,
            device_ids=[device] if on_cuda else None,
            **_NO_BUFFERS,
            bucket_cap_mb=bucket_mb,
            gradient_as_bucket_view=True,
        )
    if on_cuda:
        torch.cuda.current_stream(device).wait_stream(capture_stream(device))
    if weight is not None:
        parallel.register_forward_hook(functools.partial(_count_as, weight * dist.get_world_size()))
    return parallel


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def _count_as(factor: float, _module: nn.Module, _args: Any, output: Any) -> Any:
    """Forward hook. At the output, so that what SyncBatchNorm shares in the backward pass is scaled too.

    output: a tensor, or a tree of them, as of a network that predicts several times.
    """
    return tree_map_only(Tensor, lambda tensor: _ScaledGradient.apply(tensor, factor), output)


@torch.no_grad()
def average_buffers(model: nn.Module, weight: float) -> None:
    """Floating-point buffers become their mean over the processes, with `weight` for this one's.

    Exact for running means, as they are linear in the batches. Running variances become the mean variance of
    a process's share, which is what the network trains with; the spread between shares is not in it.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.double().flatten() for buffer in buffers]) * weight
    dist.all_reduce(flat)
    for buffer, mean in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


@torch.no_grad()
def checksum(model: nn.Module) -> int:
    """Of the bits of all parameters, in their order; equal copies have equal ones."""
    sums = [
        parameter.view(_BITS[parameter.element_size()]).sum(dtype=torch.int64)
        for parameter in model.parameters()
    ]
    if not sums:
        return 0
    odd = 2 * torch.arange(len(sums), device=sums[0].device) + 1
    return int((torch.stack(sums) * odd).sum())


def difference(rows: list[list[int]], names: tuple[str, ...]) -> str | None:
    """Where the processes' `rows` of numbers called `names` first part, in words; None where they agree."""
    for column, name in enumerate(names):
        values = [row[column] for row in rows]
        usual = max(sorted(set(values)), key=values.count)
        odd = [rank for rank, value in enumerate(values) if value != usual]
        if odd:
            ranks = ", ".join(map(str, odd))
            return f"rank {ranks} has {name} {', '.join(str(values[r]) for r in odd)}, the others {usual}"
    return None


def as_bytes(data: bytes) -> Tensor:
    """(len,) uint8"""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
