"""The fused sum by moments as one differentiable function; several processes may share their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastpose.ops import fuse_steps as steps
from fastpose.ops.fuse_backward import FuseBackward, FuseSaved
from fastpose.ops.fuse_plan import FuseInputs, FusePlan, make_plan, take_apart, vector_dtype
from fastpose.reference.fuse import Fused, Row, Statistics

_Moments = dict[int, tuple[Tensor, Tensor]]  # mean and covariance, by source
_MeanVar = tuple[Tensor, Tensor]


def fuse_by_moments(rows: Sequence[Row], eps: float, group: Any = None) -> Fused:
    """`fastpose.reference.fuse.fuse` through the steps of `fuse_steps`; the arguments are checked already.

    group: torch.distributed processes that share their batch statistics, or None for this one alone.
    """
    plan, inputs = make_plan(rows)
    results = _Fuse.apply(plan, eps, group, *[tensor for part in inputs for tensor in part])
    outputs, batch, live = results[: len(rows)], results[len(rows)], list(results[len(rows) + 1 :])
    statistics: list[list[Statistics | None]] = []
    for row in plan.rows:
        of_row: list[Statistics | None] = []
        for path in row:
            images, _, height, width = inputs.sources[path.source].shape
            if path.frozen:
                of_row.append(None)
                continue
            mean, var = live.pop(0), live.pop(0)
            of_row.append(Statistics(mean, var, (images if group is None else batch) * (height * width)))
        statistics.append(of_row)
    return Fused(list(outputs), statistics)


class _Fuse(torch.autograd.Function):
    """Outputs of the rows, size of the shared batch, mean and variance of the paths that are not frozen."""

    @staticmethod
    def forward(ctx: Any, plan: FusePlan, eps: float, group: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = take_apart(plan, tensors)
        moments = _input_moments(plan, inputs)
        stats = _path_statistics(plan, inputs, moments)
        batch = inputs.sources[0].new_empty(0, dtype=torch.float64)
        if group is not None:
            stats, batch = _share_statistics(plan, stats, inputs.sources[0].shape[0], group)
        outputs = [_forward_row(plan, row, inputs, stats, eps) for row in range(len(plan.rows))]
        ctx.static = plan, eps, group, tuple(moments), tuple(tensor.dtype for tensor in tensors)
        pairs = [tensor for pair in (*stats, *moments.values()) for tensor in pair]
        ctx.save_for_backward(*inputs.sources, *inputs.weights, *inputs.gammas, *outputs, batch, *pairs)
        live = [tensor for path in plan.paths if not path.frozen for tensor in stats[path.number]]
        ctx.mark_non_differentiable(batch, *live)
        ctx.set_materialize_grads(False)
        return (*outputs, batch, *live)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        plan, eps, group, moment_sources, dtypes = ctx.static
        paths = len(plan.paths)
        parts, flat = [], ctx.saved_tensors
        for length in (plan.sources, plan.weights, paths, len(plan.rows), 1, 2 * paths):
            parts.append(flat[:length])
            flat = flat[length:]
        sources, weights, gammas, outputs, (batch,), stats = parts
        moments = {source: (flat[2 * i], flat[2 * i + 1]) for i, source in enumerate(moment_sources)}
        pairs = [(stats[2 * i], stats[2 * i + 1]) for i in range(paths)]
        saved = FuseSaved(sources, weights, gammas, outputs, pairs, batch, moments)
        gradients = FuseBackward(plan, saved, eps, group).run(grads)
        cast = (None if g is None else g.to(dtype) for g, dtype in zip(gradients, dtypes, strict=True))
        return None, None, None, *cast


def _input_moments(plan: FusePlan, inputs: FuseInputs) -> _Moments:
    """Of every source whose batch statistics some 1x1 convolution needs; zero for an empty batch."""
    live = [
        source for source in plan.sources_of_1x1 if any(not path.frozen for _, path in plan.readers(source))
    ]
    return {source: _moments(inputs.sources[source]) for source in live}


def _moments(x: Tensor) -> _MeanVar:
    if x.numel() > 0:
        return steps.input_moments(x)
    # The means over nothing are NaN, which would spread to the processes that have samples.
    mean = x.new_zeros(x.shape[1], dtype=vector_dtype(x))
    return mean, mean.new_zeros(x.shape[1], x.shape[1])


def _path_statistics(plan: FusePlan, inputs: FuseInputs, moments: _Moments) -> list[_MeanVar]:
    """Mean and variance (C,) of every path, by number: of this process's batch, or as given."""
    found: dict[int, _MeanVar] = {}
    for source, (mean, cov) in moments.items():
        live = [path for _, path in plan.readers(source) if not path.frozen]
        stats = steps.path_statistics(mean, cov, [inputs.weights[path.weight] for path in live])
        found.update({path.number: (stat[0], stat[1]) for path, stat in zip(live, stats, strict=True)})
    live = [path for path in plan.paths if path.weight < 0 and not path.frozen]
    if live:
        stats = _channel_statistics([inputs.sources[path.source] for path in live])
        found.update({path.number: (stat[0], stat[1]) for path, stat in zip(live, stats, strict=True)})
    frozen = [path for path in plan.paths if path.frozen]
    given = zip(inputs.given[::2], inputs.given[1::2], strict=True)
    found.update({path.number: pair for path, pair in zip(frozen, given, strict=True)})
    return [found[path.number] for path in plan.paths]


def _channel_statistics(images: list[Tensor]) -> list[Tensor]:
    if images[0].numel() > 0:
        return steps.channel_statistics(images)
    return [x.new_zeros(2, x.shape[1], dtype=vector_dtype(x)) for x in images]


def _share_statistics(
    plan: FusePlan, stats: list[_MeanVar], batch: int, group: Any
) -> tuple[list[_MeanVar], Tensor]:
    """Statistics over all processes, and the size of their batch (1,) float64.

    One message: the size and the first two moments of the paths' outputs, in float64. They follow from the
    moments of the inputs in each process, so C numbers travel and not C².
    """
    live = [path.number for path in plan.paths if not path.frozen]
    dtype = stats[0][0].dtype
    message = [stats[0][0].new_full((1,), batch, dtype=torch.float64)]
    for number in live:
        mean, var = (value.double() for value in stats[number])
        message += [mean * batch, (var + mean.square()) * batch]
    total = torch.cat(message)
    dist.all_reduce(total, group=group)
    size = total[:1].clamp_min(1)  # where no process has a sample, zeros and not NaN
    shared, start = list(stats), 1
    for number in live:
        channels = len(stats[number][0])
        mean, square = (total[start : start + 2 * channels] / size).view(2, channels)
        shared[number] = mean.to(dtype), (square - mean.square()).clamp_min(0).to(dtype)
        start += 2 * channels
    return shared, size


def _forward_row(plan: FusePlan, row: int, inputs: FuseInputs, stats: list[_MeanVar], eps: float) -> Tensor:
    weighted = [path for path in plan.rows[row] if path.weight >= 0]
    images = [path for path in plan.rows[row] if path.weight < 0]
    order = [path.number for path in (*weighted, *images)]
    place = plan.identities[row]
    identity = None if place < 0 else inputs.sources[place]
    addends = [inputs.sources[path.source] for path in (*weighted, *images)]
    everything = addends if identity is None else [identity, *addends]
    return steps.forward_row(
        identity,
        addends[: len(weighted)],
        [inputs.weights[path.weight] for path in weighted],
        addends[len(weighted) :],
        [inputs.gammas[number] for number in order],
        [inputs.betas[number] for number in order],
        [stats[number][0] for number in order],
        [stats[number][1] for number in order],
        (max(x.shape[2] for x in everything), max(x.shape[3] for x in everything)),
        eps,
    )
