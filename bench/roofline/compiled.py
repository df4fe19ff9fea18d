"""Schemes b and f: cuDNN's convolutions, between them what Inductor makes, or one kernel for a fused sum."""

from __future__ import annotations

from bench.roofline.kernels import Tensor
from bench.roofline.moments import Moments
from bench.roofline.sums import Addend, Sum
from bench.roofline.trace import Op


class Compiled(Moments):
    """b: a pass for the statistics of a BatchNorm, one for a whole sum; back, a reduction and a pass for dx.

    f: the same, but a 1x1 convolution that is only upsampled into a sum is computed there, its statistics
    come from the moments of its input, and the pass that masks the gradient of a sum also pools it.
    """

    def forward_sum(self, node: Sum) -> None:
        self.gram(node)
        for addend in node.norms:
            if addend.value not in self.inner:
                self.launch("stat", _scope(addend), self.images([addend.value]), set())
        self.apply(node)

    def backward_sum(self, node: Sum) -> None:
        parts = self.grads[node.output]
        reads = set(parts) | (self.images([node.output]) if node.relu else set())
        if len(node.norms) == 1 and not node.enlarges:
            self._reduce_with_mask(node, reads)
            return
        masked = self._masked(node, reads)
        for addend in node.addends:
            gradient = self.pooled(node, addend, masked)
            if addend.norm is None:
                self.grads[addend.value].append(gradient)
            elif addend.value not in self.inner:
                self._normalise_back(addend, {gradient})

    def _reduce_with_mask(self, node: Sum, reads: set[Tensor]) -> None:
        """The reduction adds and masks the gradients, and writes that where somebody reads it again."""
        addend = node.norms[0]
        image = self.image(addend.value)
        others = [other for other in node.addends if other.norm is None]
        if len(self.grads[node.output]) == 1 and not others:
            self.launch("reduce", _scope(addend), reads | {image}, set(), backward=True)
        else:
            masked = self.fresh("masked", node.output)
            self.launch("reduce", node.scope, reads | {image}, {masked}, backward=True)
            reads = {masked}
            for other in others:
                self.grads[other.value].append(masked)
        self.launch("dx", _scope(addend), reads | {image}, {self.contribution(addend.value)}, backward=True)

    def _masked(self, node: Sum, reads: set[Tensor]) -> Tensor:
        if len(reads) == 1:
            return next(iter(reads))
        masked = self.fresh("masked", node.output)
        kernel = self.launch("mask", node.scope, reads, {masked}, backward=True)
        kernel.writes |= self.pool_with_mask(node)
        return masked

    def _normalise_back(self, addend: Addend, gradient: set[Tensor]) -> None:
        reads = gradient | self.images([addend.value])
        self.launch("reduce", _scope(addend), reads, set(), backward=True)
        self.launch("dx", _scope(addend), reads, {self.contribution(addend.value)}, backward=True)


def _scope(addend: Addend) -> str:
    return addend.norm.scope if isinstance(addend.norm, Op) else ""
