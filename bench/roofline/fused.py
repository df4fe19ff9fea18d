"""Schemes p, c and x: convolutions that take BatchNorm in, before, behind and in the backward pass."""

from __future__ import annotations

from typing import Any

from bench.roofline.kernels import Kernel, Tensor
from bench.roofline.moments import Moments
from bench.roofline.sums import Addend, Sum
from bench.roofline.trace import Graph, Op


class Fused(Moments):
    """A convolution's prologue applies BatchNorm, ReLU and shortcut to what it reads, and its epilogue takes
    the statistics of what it writes. The last kernel to write a summand of a gradient adds the others, masks
    the whole and takes the sums of BatchNorm's backward. Sums of more than two addends or of several
    resolutions are kernels of their own, as in f.

    gradient: how the gradient dz of a BatchNorm's input comes to dgrad and wgrad: `stored` by a pass of its
    own (scheme p), `formed` in their prologues (c), or in the prologue of one kernel for both, `merged` (x).
    """

    def __init__(self, graph: Graph, gradient: str) -> None:
        super().__init__(graph, moments=True)
        self.forms, self.merges = gradient != "stored", gradient == "merged"
        self.sums = {node.output: node for node in self.nodes if isinstance(node, Sum)}
        self.pending: dict[int, Sum] = {}  # sums that the next convolution applies
        self.writer: dict[Tensor, Kernel] = {}
        self.dz: dict[int, set[Tensor]] = {}  # what the gradient of a convolution's output is formed from

    def launch(self, *what: Any, **more: Any) -> Kernel:
        kernel = super().launch(*what, **more)
        self.writer.update(dict.fromkeys(kernel.writes, kernel))
        return kernel

    def forward_sum(self, node: Sum) -> None:
        self.gram(node)
        if not _is_kernel(node) and any(self._has_prologue(op) for op in self.readers[node.output]):
            self.pending[node.output] = node
        else:
            self.apply(node)

    def forward_conv(self, op: Op) -> None:
        reads, writes = self._inputs(op), self.images(op.outputs)
        for value in op.inputs:
            if value in self.pending and not self._is_virtual(value):
                reads = self.images([addend.value for addend in self.pending.pop(value).addends])
                writes |= self.images([value])
        self.launch("fprop", op.scope, reads, writes, op=op)

    def backward_sum(self, node: Sum) -> None:
        masked = self._mask(node) if _is_kernel(node) else self._finish(node)
        for addend in node.addends:
            gradient = self.pooled(node, addend, masked)
            if addend.norm is None:
                self.grads[addend.value].append(gradient)
            elif addend.value not in self.inner:
                self._normalise_back(addend, gradient)

    def backward_conv(self, op: Op) -> None:
        value = op.outputs[0]
        gradient = self.dz.get(value) or self.gradient(value, op.scope)
        reads = gradient | self._inputs(op)
        learning = [source for source in op.inputs if source in self.learns]
        if not self.merges or not learning:
            self.pass_back(op, gradient, reads)
            return
        writes = {self.contribution(source) for source in learning}
        kernel = self.launch("dgrad and wgrad", op.scope, reads, writes, op=op, backward=True)
        kernel.weights, kernel.macs = 2 * op.weights, 2 * op.macs

    def _mask(self, node: Sum) -> Tensor:
        masked = self.fresh("masked", node.output)
        reads = set(self.grads[node.output]) | self._for_backward(node)
        kernel = self.launch("mask", node.scope, reads, {masked}, backward=True)
        kernel.writes |= self.pool_with_mask(node)
        return masked

    def _finish(self, node: Sum) -> Tensor:
        """The gradient of a sum by the kernel that wrote its last summand, or by a pass where none did."""
        parts = self.grads[node.output]
        own = [part for part in parts if (part.name, part.number) == ("gradient", node.output)]
        if not own or own[-1] not in self.writer:
            return self._mask(node)
        self.writer[own[-1]].reads |= set(parts) - {own[-1]} | self._for_backward(node)
        return own[-1]

    def _for_backward(self, node: Sum) -> set[Tensor]:
        """What gives the sign under the ReLU, and the normalised images for BatchNorm's backward."""
        images = [addend.value for addend in node.norms if addend.value not in self.inner]
        if node.relu and not self._is_virtual(node.output):
            images.append(node.output)
        return self.images(images)

    def _normalise_back(self, addend: Addend, gradient: Tensor) -> None:
        image, producer = self.image(addend.value), self.producers.get(addend.value)
        if self.forms and producer is not None and producer.kind == "conv":
            self.dz[addend.value] = {gradient, image}
        elif addend.norm is not None:
            dz = self.contribution(addend.value)
            self.launch("dz", addend.norm.scope, {gradient, image}, {dz}, backward=True)

    def _is_virtual(self, value: int) -> bool:
        """Whether a value is formed in prologues alone: BatchNorm and ReLU of one image, for convolutions."""
        node = self.sums.get(value)
        if node is None or node.enlarges or len(node.addends) > 1 or not node.norms:
            return False
        return bool(self.readers[value]) and all(self._has_prologue(op) for op in self.readers[value])

    def _has_prologue(self, op: Op) -> bool:
        return op.kind == "conv" and op.outputs[0] not in self.inner

    def _inputs(self, op: Op) -> set[Tensor]:
        """What stands for a convolution's inputs in memory."""
        stored = [self.sums[v].addends[0].value if self._is_virtual(v) else v for v in op.inputs]
        return self.images(stored)


def _is_kernel(node: Sum) -> bool:
    return node.enlarges or len(node.addends) > 2
