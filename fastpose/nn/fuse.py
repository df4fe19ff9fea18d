"""From modules to fastpose.ops.fuse and back: which layers it can stand for, and their running averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from fastpose.backend import get_backend
from fastpose.ops._fuse import fuse, fuse_runs_on_triton
from fastpose.reference.fuse import Path, Row, Statistics


class Branch(NamedTuple):
    """An addend as modules: the BatchNorm `norm` of `conv(x)`, or of `x` itself where `conv` is None."""

    x: Tensor
    conv: Any
    norm: Any


class Sum(NamedTuple):
    identity: Tensor | None
    branches: tuple[Branch, ...]


def fuses(images: Sequence[Tensor]) -> bool:
    """Whether the kernels run for such inputs: the backend, the device and the dtype allow it.

    Not while somebody listens to all modules, who would miss the ones that are passed over.
    """
    x = images[0]
    device = x.device.type
    if any(image.dtype != x.dtype for image in images) or _has_any_global_hook():
        return False
    if not fuse_runs_on_triton(get_backend(), device, x.dtype):
        return False
    # Under an autocast to another dtype the layers would not compute in that of their inputs.
    return not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) == x.dtype


def fusable(conv: Any, norm: Any) -> bool:
    """Whether `fuse_sums` computes just what the two modules would: nobody replaced or hooked them.

    `conv`: the 1x1 convolution before `norm`; None where there is none to fuse.
    """
    if conv is not None:
        if not plain(conv, nn.Conv2d):
            return False
        pointwise = (1, 1), (1, 1), (0, 0), 1, None
        if (conv.kernel_size, conv.stride, conv.padding, conv.groups, conv.bias) != pointwise:
            return False
    return plain(norm, nn.BatchNorm2d, nn.SyncBatchNorm)


def alike(norms: Sequence[Any]) -> bool:
    """Whether one call can do for all of `norms`: one eps, and one group of processes for the statistics."""
    groups = [_group(norm) for norm in norms if _takes_statistics(norm)]
    return all(norm.eps == norms[0].eps for norm in norms) and all(group is groups[0] for group in groups)


def plain(module: Any, *kinds: type[nn.Module]) -> bool:
    """Whether `module` is one of `kinds` as it was made: no subclass, not hooked, no `forward` of its own."""
    return type(module) in kinds and not _hooked(module) and "forward" not in module.__dict__


def fuse_sums(sums: Sequence[Sum]) -> list[Tensor]:
    """ReLU of each sum, by `fastpose.ops.fuse`; updates the running statistics as the modules would."""
    norms = [branch.norm for one in sums for branch in one.branches]
    group = next((_group(norm) for norm in norms if _takes_statistics(norm)), None)
    rows = [Row(one.identity, tuple(_path(branch, group) for branch in one.branches)) for one in sums]
    fused = fuse(rows, eps=norms[0].eps, group=group)
    update_running_statistics(norms, [s for of_row in fused.statistics for s in of_row])
    return fused.outputs


@torch.no_grad()
def update_running_statistics(norms: Sequence[Any], statistics: Sequence[Statistics | None]) -> None:
    """What nn.BatchNorm2d does to its buffers in one training step; few launches for all of `norms`."""
    pairs = zip(norms, statistics, strict=True)
    live = [(norm, s) for norm, s in pairs if s is not None and _tracks(norm)]
    if not live:
        return
    torch._foreach_add_([norm.num_batches_tracked for norm, _ in live], 1)
    # An empty batch counts, but has no statistics.
    live = [(norm, s) for norm, s in live if not isinstance(s.pixels, int) or s.pixels > 0]
    if not live:
        return
    running = [buffer for norm, _ in live for buffer in (norm.running_mean, norm.running_var)]
    found = [v for _, s in live for v in (s.mean, s.var * (s.pixels / (s.pixels - 1)))]
    found = [value.to(buffer.dtype) for value, buffer in zip(found, running, strict=True)]
    momenta = {norm.momentum for norm, _ in live}
    if len(momenta) == 1 and None not in momenta:
        torch._foreach_lerp_(running, found, momenta.pop())
        return
    for i, (norm, _) in enumerate(live):
        momentum = 1.0 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
        for buffer, value in zip(running[2 * i : 2 * i + 2], found[2 * i : 2 * i + 2], strict=True):
            buffer.add_((value - buffer) * momentum)


def _path(branch: Branch, group: Any) -> Path:
    x, norm = branch.x, branch.norm
    weight = None if branch.conv is None else branch.conv.weight
    given: tuple[Tensor | None, Tensor | None] = (None, None)
    if not _takes_statistics(norm):
        given = norm.running_mean, norm.running_var
    elif group is None and x.shape[0] * x.shape[2] * x.shape[3] == 1:
        size = torch.Size((1, norm.num_features, 1, 1))
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
    return Path(x, weight, norm.weight, norm.bias, *given)


def _takes_statistics(norm: Any) -> bool:
    """Whether `norm` normalises with the statistics of the batch."""
    return norm.training or norm.running_mean is None


def _tracks(norm: Any) -> bool:
    return norm.training and norm.track_running_stats and norm.running_mean is not None


def _group(norm: Any) -> Any:
    """Processes that share the statistics of `norm`: those of SyncBatchNorm while it trains, else None."""
    if type(norm) is not nn.SyncBatchNorm or not norm.training:
        return None
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = norm.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def _hooked(module: nn.Module) -> bool:
    """Whether somebody listens to this very module, whom a fused sum would pass over."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
