"""Scheme a, one kernel for each operator, and scheme d, the floor under every scheme."""

from __future__ import annotations

from bench.roofline.kernels import Kernel, Tensor
from bench.roofline.sums import Node
from bench.roofline.trace import Graph, Op
from bench.roofline.walk import Walk


class Eager(Walk):
    """Every operator on its own. BatchNorm in training is a pass for the statistics and one to apply them."""

    def __init__(self, graph: Graph, training: bool) -> None:
        super().__init__(graph)
        self.training = training

    def order(self) -> list[Node]:
        return list(self.graph.ops)

    def forward(self, node: Node) -> None:
        if isinstance(node, Op) and node.kind == "norm" and self.training:
            self.launch("stat", node.scope, self.images(node.inputs), set())
        super().forward(node)

    def backward_other(self, op: Op) -> None:
        gradient = self.gradient(op.outputs[0], op.scope)
        if op.kind == "add":  # both summands have the gradient of the sum, in the same memory
            for value in op.inputs:
                self.grads[value] += gradient
        elif op.kind == "norm":
            reads = gradient | self.images(op.inputs)
            self.launch("reduce", op.scope, reads, set(), backward=True)
            self.launch("dx", op.scope, reads, {self.contribution(op.inputs[0])}, backward=True)
        elif op.kind == "relu":
            reads = gradient | self.images(op.outputs)
            self.launch("mask", op.scope, reads, {self.contribution(op.inputs[0])}, backward=True)
        elif op.kind == "upsample":
            self.launch("pool", op.scope, gradient, {self.contribution(op.inputs[0])}, backward=True)
        else:
            super().backward_other(op)

    def gradient(self, value: int, scope: str) -> set[Tensor]:
        """Autograd adds the summands two by two as they arrive."""
        while len(self.grads[value]) > 1:
            first, second, *rest = self.grads[value]
            total = self.fresh("gradient", value)
            self.launch("sum gradients", scope, {first, second}, {total}, backward=True)
            self.grads[value] = [total, *rest]
        return set(self.grads[value])


def floor(graph: Graph, training: bool) -> tuple[Kernel, ...]:
    """Each pass of a convolution reads its inputs once and writes its outputs once; there is nothing else."""
    walk = Walk(graph)
    convs = [op for op in graph.ops if op.kind == "conv"]
    for op in convs:
        walk.forward_conv(op)
    for op in convs if training else ():
        walk.grads[op.outputs[0]] = [walk.fresh("gradient", op.outputs[0])]
        walk.backward_conv(op)
    return tuple(walk.kernels)
