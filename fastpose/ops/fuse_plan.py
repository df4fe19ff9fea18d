"""Who reads what in a fused sum: rows of tensors as places in flat lists, which autograd can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastpose.reference.fuse import Row, vector_dtype


class FusePath(NamedTuple):
    number: int  # among all paths of all rows
    source: int
    weight: int  # -1: BatchNorm alone
    frozen: bool  # normalises with statistics that were given


class FusePlan(NamedTuple):
    sources: int  # how many
    weights: int
    identities: tuple[int, ...]  # source of each row, -1 for none
    rows: tuple[tuple[FusePath, ...], ...]

    @property
    def sources_of_1x1(self) -> list[int]:
        """Sources that some 1x1 convolution reads."""
        return [source for source in range(self.sources) if self.readers(source)]

    @property
    def paths(self) -> list[FusePath]:
        return [path for row in self.rows for path in row]

    def readers(self, source: int) -> list[tuple[int, FusePath]]:
        """(row, path) of every 1x1 convolution of a source."""
        return [
            (i, path)
            for i, row in enumerate(self.rows)
            for path in row
            if path.source == source and path.weight >= 0
        ]


class FuseInputs(NamedTuple):
    """The tensors of a plan. Vectors are in the dtype of the computation, float32 or float64."""

    sources: list[Tensor]
    weights: list[Tensor]  # (C, inputs)
    gammas: list[Tensor]  # of each path, by number
    betas: list[Tensor]
    given: list[Tensor]  # mean and variance of the frozen paths, in order


def make_plan(rows: Sequence[Row]) -> tuple[FusePlan, FuseInputs]:
    """A tensor that is read several times becomes one source."""
    inputs = FuseInputs([], [], [], [], [])
    plans = []
    for row in rows:
        paths = []
        for path in row.paths:
            dtype = vector_dtype(path.x)
            channels = path.x.shape[1] if path.weight is None else path.weight.shape[0]
            ones = path.x.new_ones(channels, dtype=dtype) if path.gamma is None else path.gamma
            number, weight = len(inputs.gammas), -1 if path.weight is None else len(inputs.weights)
            paths.append(FusePath(number, _place(path.x, inputs.sources), weight, path.mean is not None))
            inputs.gammas.append(ones)
            inputs.betas.append(torch.zeros_like(ones) if path.beta is None else path.beta)
            if path.weight is not None:
                inputs.weights.append(path.weight.flatten(1))
            if path.mean is not None and path.var is not None:
                inputs.given.extend((path.mean.to(dtype), path.var.to(dtype)))
        plans.append(tuple(paths))
    identities = tuple(-1 if row.identity is None else _place(row.identity, inputs.sources) for row in rows)
    return FusePlan(len(inputs.sources), len(inputs.weights), identities, tuple(plans)), inputs


def take_apart(plan: FusePlan, tensors: Sequence[Tensor]) -> FuseInputs:
    """Flat list of all inputs, as autograd hands it over, with the weights in the sources' dtype."""
    paths = len(plan.paths)
    parts, start = [], 0
    for length in (plan.sources, plan.weights, paths, paths):
        parts.append(list(tensors[start : start + length]))
        start += length
    sources, weights, gammas, betas = parts
    dtype = vector_dtype(sources[0])
    gammas, betas = ([v.to(dtype) for v in part] for part in (gammas, betas))
    return FuseInputs(sources, _cast_all(weights, sources[0].dtype), gammas, betas, list(tensors[start:]))


def _cast_all(weights: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """One launch for all of them."""
    if all(weight.dtype == dtype for weight in weights):
        return [weight.contiguous() for weight in weights]
    cast = [torch.empty_like(w, dtype=dtype, memory_format=torch.contiguous_format) for w in weights]
    torch._foreach_copy_(cast, weights)
    return cast


def _place(x: Tensor, known: list[Tensor]) -> int:
    for place, other in enumerate(known):
        if other is x:
            return place
    known.append(x)
    return len(known) - 1
