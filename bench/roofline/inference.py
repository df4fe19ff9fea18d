"""Schemes of the forward pass alone, with BatchNorm's statistics known."""

from __future__ import annotations

from bench.roofline.kernels import Kernel
from bench.roofline.moments import Moments
from bench.roofline.sums import Sum
from bench.roofline.trace import Graph, Op


class Inductor(Moments):
    """b: cuDNN's convolutions, and one pass for every sum."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, moments=False)


class Folded(Moments):
    """t: BatchNorm is folded into the convolution; its epilogue adds at most one image and applies the ReLU.

    c: besides, 1x1 convolutions that are only upsampled into a sum are computed there.
    """

    def __init__(self, graph: Graph, moments: bool) -> None:
        super().__init__(graph, moments)
        self.writer: dict[int, Kernel] = {}

    def forward_conv(self, op: Op) -> None:
        super().forward_conv(op)
        self.writer[op.outputs[0]] = self.kernels[-1]

    def forward_sum(self, node: Sum) -> None:
        # Whoever reads the convolution's own output, its epilogue cannot replace it.
        hosts = [
            self.writer[addend.value]
            for addend in node.addends
            if addend.value in self.writer and len(self.readers[addend.value]) == 1
        ]
        if node.enlarges or len(node.addends) > 2 or not hosts:
            self.apply(node)
        else:
            last = hosts[-1]
            last.reads |= self.images([addend.value for addend in node.addends]) - last.writes
            last.writes = self.images([node.output])
