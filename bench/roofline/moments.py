"""1x1 convolutions computed where they are added; their BatchNorm needs only the moments of their input."""

from __future__ import annotations

from collections import defaultdict

from bench.roofline.kernels import Tensor
from bench.roofline.sums import Addend, Node, Sum
from bench.roofline.trace import Graph, Op
from bench.roofline.walk import Walk


class Moments(Walk):
    """Finds them (none without `moments`) and lists what they cost: PERFORMANCE.md 3 (ii) and (iii)."""

    def __init__(self, graph: Graph, moments: bool) -> None:
        super().__init__(graph)
        self.producers, self.readers = graph.producers(), graph.consumers()
        self.moments = moments
        self.sources: dict[int, list[tuple[Sum, Addend]]] = defaultdict(list)
        self.pools: dict[tuple[int, int], Tensor] = {}
        self.inner: set[int] = set()  # outputs of these convolutions, which are never stored
        for node in self.nodes:
            if isinstance(node, Sum):
                self._find_sources(node)

    def _find_sources(self, node: Sum) -> None:
        for addend in node.addends:
            if self._by_moments(addend):
                self.inner.add(addend.value)
                self.sources[self.source(addend)].append((node, addend))

    def _by_moments(self, addend: Addend) -> bool:
        conv = self.producers.get(addend.value)
        return (
            self.moments
            and addend.norm is not None
            and addend.factor > 1
            and conv is not None
            and conv.pointwise
            and len(self.readers[addend.value]) == 1
        )

    def source(self, addend: Addend) -> int:
        """What a sum reads for an addend: the input of the convolution that it does itself, or the value."""
        return self.producers[addend.value].inputs[0] if addend.value in self.inner else addend.value

    def forward(self, node: Node) -> None:
        if isinstance(node, Sum) or node.outputs[0] not in self.inner:
            super().forward(node)

    def backward(self, node: Node) -> None:
        for value in (node.output,) if isinstance(node, Sum) else node.outputs:
            if value in self.inner:
                return
            self.pass_back_source(value)
        super().backward(node)

    def gram(self, node: Sum) -> None:
        """One pass over each source for its mean and covariance, before the first sum that needs them."""
        for addend in node.addends:
            readers = self.sources.get(self.source(addend), [])
            if addend.value in self.inner and readers[0][1] is addend:
                conv, image = self.producers[addend.value], self.image(self.source(addend))
                macs = image.elements * self.graph.values[image.number].channels
                self.launch("gram", conv.scope, {image}, set(), macs=macs)

    def apply(self, node: Sum) -> None:
        """One pass that reads the addends, does their 1x1 convolutions and writes the result."""
        reads = self.images([self.source(addend) for addend in node.addends])
        kernel = self.launch("apply", node.scope, reads, self.images([node.output]))
        for conv in self.convolutions(node):
            kernel.macs += conv.macs
            kernel.weights += conv.weights

    def convolutions(self, node: Sum) -> list[Op]:
        return [self.producers[addend.value] for addend in node.addends if addend.value in self.inner]

    def pool_with_mask(self, node: Sum) -> set[Tensor]:
        """What the pass that masks a sum's gradient writes besides, for those who only need it coarser."""
        if not self.moments:
            return set()
        factors = {addend.factor for addend in node.addends if addend.factor > 1}
        pools = {factor: self.fresh("pooled", node.output, factor) for factor in factors}
        self.pools.update({(node.output, factor): pool for factor, pool in pools.items()})
        return set(pools.values())

    def pooled(self, node: Sum, addend: Addend, masked: Tensor) -> Tensor:
        """The gradient of the sum at the resolution of an addend."""
        if addend.factor == 1:
            return masked
        if (node.output, addend.factor) not in self.pools:
            pool = self.fresh("pooled", node.output, addend.factor)
            scope = addend.norm.scope if addend.norm is not None else node.scope
            self.launch("pool", scope, {masked}, {pool}, backward=True)
            self.pools[node.output, addend.factor] = pool
        return self.pools[node.output, addend.factor]

    def pass_back_source(self, value: int) -> None:
        """One pass for the gradients of all 1x1 convolutions of `value`, one for that of `value` itself."""
        readers = self.sources.pop(value, [])
        if not readers:
            return
        convs = [self.producers[addend.value] for _, addend in readers]
        image = self.image(value)
        reads = {self.pools[node.output, addend.factor] for node, addend in readers} | {image}
        macs = sum(conv.macs for conv in convs)
        weights = sum(conv.weights for conv in convs)
        own = image.elements * self.graph.values[value].channels
        cross = self.launch("cross", convs[0].scope, reads, set(), macs=macs, backward=True)
        source = self.launch(
            "source dx", convs[0].scope, reads, {self.contribution(value)}, macs=macs + own, backward=True
        )
        cross.weights = source.weights = weights
