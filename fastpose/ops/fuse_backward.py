"""Backward pass of the fused sum by moments, in the order of docs/ops/fuse.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fastpose.ops import fuse_steps as steps
from fastpose.ops.fuse_plan import FusePath, FusePlan
from fastpose.reference.fuse import vector_dtype


class FuseSaved(NamedTuple):
    sources: Sequence[Tensor]
    weights: Sequence[Tensor]  # (C, inputs), in the sources' dtype
    gammas: Sequence[Tensor]
    outputs: Sequence[Tensor]
    stats: Sequence[tuple[Tensor, Tensor]]  # mean and variance (C,) of every path
    batch: Tensor  # (1,) over all processes, or empty
    moments: dict[int, tuple[Tensor, Tensor]]  # mean and covariance of sources whose statistics were taken


class FuseBackward:
    """One pass over each output's gradient, one over each source, and small matrices between them."""

    def __init__(self, plan: FusePlan, saved: FuseSaved, eps: float, group: Any) -> None:
        self.plan, self.saved, self.eps, self.group = plan, saved, eps, group
        self.masked: list[Tensor] = []  # of each row
        self.pooled: list[dict[int, Tensor]] = []  # of each row, by level
        self.crosses: dict[int, Tensor] = {}  # by path
        self.dbetas: dict[int, Tensor] = {}
        self.dgammas: dict[int, Tensor] = {}
        self.sums: dict[int, tuple[Tensor, Tensor]] = {}  # dbeta and dgamma over all processes
        self.dsources: list[Tensor | None] = [None] * plan.sources
        self.dweights: list[Tensor | None] = [None] * plan.weights

    def run(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of sources, weights, gammas and betas, then None for the statistics that were given."""
        for row in range(len(self.plan.rows)):
            grad = grads[row]
            self._row_pass(row, torch.zeros_like(self.saved.outputs[row]) if grad is None else grad)
        for source in self.plan.sources_of_1x1:
            self._cross_pass(source)
        self._share_sums()
        for row in range(len(self.plan.rows)):
            self._image_pass(row)
        for source in self.plan.sources_of_1x1:
            self._source_pass(source)
        for row, source in enumerate(self.plan.identities):
            if source >= 0 and not self.plan.readers(source):
                self._add(source, self.masked[row])
        numbers = range(len(self.plan.paths))
        vectors = [self.dgammas[i] for i in numbers] + [self.dbetas[i] for i in numbers]
        given = [None] * (2 * sum(path.frozen for path in self.plan.paths))
        return [*self.dsources, *self.dweights, *vectors, *given]

    def _row_pass(self, row: int, grad: Tensor) -> None:
        paths, output = self.plan.rows[row], self.saved.outputs[row]
        images = [path for path in paths if path.weight < 0]
        levels = sorted({self._level(row, path) for path in paths} - {0})
        masked, pooled, dbeta, dgammas = steps.backward_row(
            grad,
            output,
            [self.saved.sources[path.source] for path in images],
            [self.saved.stats[path.number][0] for path in images],
            [self.saved.stats[path.number][1] for path in images],
            levels,
            self.eps,
        )
        self.masked.append(masked)
        self.pooled.append({0: masked, **dict(zip(levels, pooled, strict=True))})
        self.dbetas.update({path.number: dbeta for path in paths})
        self.dgammas.update({path.number: dgammas[i] for i, path in enumerate(images)})

    def _cross_pass(self, source: int) -> None:
        readers = self.plan.readers(source)
        crosses, dgammas = steps.cross_moments(
            self.saved.sources[source],
            self._moments(source)[0],
            [self.pooled[row][self._level(row, path)] for row, path in readers],
            [self.saved.weights[path.weight] for _, path in readers],
            [self.saved.stats[path.number][0] for _, path in readers],
            [self.saved.stats[path.number][1] for _, path in readers],
            self.eps,
        )
        for i, (_, path) in enumerate(readers):
            self.crosses[path.number], self.dgammas[path.number] = crosses[i], dgammas[i]

    def _share_sums(self) -> None:
        """Means of dbeta and dgamma over the pixels of all processes, in one message; or their plain sums."""
        paths = self.plan.paths
        self.sums = {path.number: (self.dbetas[path.number], self.dgammas[path.number]) for path in paths}
        live = [path for path in paths if not path.frozen]
        if self.group is None or not live:
            return
        total = torch.cat([vector for path in live for vector in self.sums[path.number]])
        dist.all_reduce(total, group=self.group)
        start = 0
        for path in live:
            _, _, height, width = self.saved.sources[path.source].shape
            channels = len(self.dbetas[path.number])
            means = total[start : start + 2 * channels] / (self.saved.batch * (height * width)).to(
                total.dtype
            )
            self.sums[path.number] = means[:channels], means[channels:]
            start += 2 * channels

    def _image_pass(self, row: int) -> None:
        images = [path for path in self.plan.rows[row] if path.weight < 0]
        if not images:
            return
        gradients = steps.image_gradients(
            self.masked[row],
            [self.saved.sources[path.source] for path in images],
            [self.saved.gammas[path.number] for path in images],
            [self.saved.stats[path.number][0] for path in images],
            [self.saved.stats[path.number][1] for path in images],
            [self.sums[path.number][0] for path in images],
            [self.sums[path.number][1] for path in images],
            [self._total(path) for path in images],
            self.eps,
        )
        for path, gradient in zip(images, gradients, strict=True):
            self._add(path.source, gradient)

    def _source_pass(self, source: int) -> None:
        readers, x = self.plan.readers(source), self.saved.sources[source]
        paths = [path for _, path in readers]
        mean, cov = self._moments(source)
        dweights, scaled, matrix, offset = steps.weight_gradients(
            [self.crosses[path.number] for path in paths],
            [self.saved.weights[path.weight] for path in paths],
            [self.saved.gammas[path.number] for path in paths],
            [self.saved.stats[path.number][0] for path in paths],
            [self.saved.stats[path.number][1] for path in paths],
            [self.dbetas[path.number] for path in paths],
            [self.sums[path.number][0] for path in paths],
            [self.sums[path.number][1] for path in paths],
            mean,
            cov,
            [self._total(path) for path in paths],
            x.shape[0] * x.shape[2] * x.shape[3],
            self.eps,
        )
        for path, dweight in zip(paths, dweights, strict=True):
            self.dweights[path.weight] = dweight
        own = [self.masked[row] for row, place in enumerate(self.plan.identities) if place == source]
        pooled = [self.pooled[row][self._level(row, path)] for row, path in readers]
        gradient = steps.input_gradient(x, own[0] if own else None, pooled, scaled, matrix, offset)
        self._add(source, gradient)
        for masked in own[1:]:
            self._add(source, masked)

    def _moments(self, source: int) -> tuple[Tensor, Tensor]:
        """Zero where all readers of the source are frozen, and nothing depends on them."""
        if source not in self.saved.moments:
            x = self.saved.sources[source]
            mean = x.new_zeros(x.shape[1], dtype=vector_dtype(x))
            self.saved.moments[source] = mean, mean.new_zeros(x.shape[1], x.shape[1])
        return self.saved.moments[source]

    def _level(self, row: int, path: FusePath) -> int:
        return (self.saved.outputs[row].shape[2] // self.saved.sources[path.source].shape[2]).bit_length() - 1

    def _total(self, path: FusePath) -> int:
        """What the sums are still to be divided by; 0 for frozen statistics."""
        if path.frozen:
            return 0
        x = self.saved.sources[path.source]
        return 1 if self.group is not None else x.shape[0] * x.shape[2] * x.shape[3]

    def _add(self, source: int, gradient: Tensor) -> None:
        before = self.dsources[source]
        self.dsources[source] = gradient if before is None else before + gradient
