"""What all schemes share: the walk forward and back over a network, and the gradients met on the way."""

from __future__ import annotations

from collections import defaultdict

from bench.roofline.kernels import Kernel, Tensor, part_of
from bench.roofline.sums import Node, Sum, nodes
from bench.roofline.trace import Graph, Op


class Walk:
    """Lists the kernels of a network; subclasses say what each convolution and each sum costs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = self.order()
        self.kernels: list[Kernel] = []
        self.grads: dict[int, list[Tensor]] = defaultdict(list)  # the summands of a value's gradient, stored
        self.learns = self._learning()
        self._counter = 0

    def order(self) -> list[Node]:
        return nodes(self.graph)

    def run(self, training: bool) -> tuple[Kernel, ...]:
        """The kernels of a forward pass, in training with those of the backward pass behind them."""
        for node in self.nodes:
            self.forward(node)
        if training:
            for value in self._results():
                self.grads[value].append(self.fresh("gradient", value))  # the loss has written it
            for node in reversed(self.nodes):
                self.backward(node)
        return tuple(self.kernels)

    def forward(self, node: Node) -> None:
        if isinstance(node, Sum):
            self.forward_sum(node)
        elif node.kind == "conv":
            self.forward_conv(node)
        else:
            self.launch(node.kind, node.scope, self.images(node.inputs), self.images(node.outputs))

    def backward(self, node: Node) -> None:
        if isinstance(node, Sum):
            self.backward_sum(node)
        elif node.kind == "conv":
            self.backward_conv(node)
        else:
            self.backward_other(node)

    def forward_conv(self, op: Op) -> None:
        self.launch("fprop", op.scope, self.images(op.inputs), self.images(op.outputs), op=op)

    def backward_conv(self, op: Op) -> None:
        """Two passes that both read the gradient of the output."""
        gradient = self.gradient(op.outputs[0], op.scope)
        self.pass_back(op, gradient, set(gradient) | self.images(op.inputs))

    def pass_back(self, op: Op, dgrad_reads: set[Tensor], wgrad_reads: set[Tensor]) -> None:
        """dgrad where somebody wants it, and wgrad where there is a weight."""
        learning = [value for value in op.inputs if value in self.learns]
        for value in learning:
            self.launch("dgrad", op.scope, dgrad_reads, {self.contribution(value)}, op=op, backward=True)
        if op.weights:
            self.launch("wgrad", op.scope, wgrad_reads, set(), op=op, backward=True)

    def forward_sum(self, node: Sum) -> None:
        """One pass that reads the addends and writes the result."""
        addends = self.images([addend.value for addend in node.addends])
        self.launch("apply", node.scope, addends, self.images([node.output]))

    def backward_sum(self, node: Sum) -> None:
        raise TypeError(f"{type(self).__name__} is for inference only")

    def backward_other(self, op: Op) -> None:
        reads = set(self.gradient(op.outputs[0], op.scope)) | self.images(op.inputs)
        writes = {self.contribution(value) for value in op.inputs if value in self.learns}
        if writes:
            self.launch(op.kind, op.scope, reads, writes, backward=True)

    def launch(
        self,
        kind: str,
        scope: str,
        reads: set[Tensor],
        writes: set[Tensor],
        *,
        op: Op | None = None,
        macs: int = 0,
        backward: bool = False,
    ) -> Kernel:
        """Notes a kernel; that of a convolution `op` also moves its weight and does its products."""
        weights = 0 if op is None else op.weights
        macs += 0 if op is None else op.macs
        kernel = Kernel(kind, part_of(scope), backward, set(reads), set(writes), weights, macs)
        self.kernels.append(kernel)
        return kernel

    def image(self, value: int) -> Tensor:
        return Tensor("image", value, 0, self.graph.values[value].elements)

    def images(self, values: list[int] | tuple[int, ...]) -> set[Tensor]:
        return {self.image(value) for value in values}

    def fresh(self, name: str, value: int, factor: int = 1) -> Tensor:
        """Memory for one more tensor like `value`, or `factor` times smaller."""
        self._counter += 1
        return Tensor(name, value, self._counter, self.graph.values[value].elements // factor)

    def contribution(self, value: int) -> Tensor:
        """A summand of the gradient of `value`, about to be written."""
        self.grads[value].append(self.fresh("gradient", value))
        return self.grads[value][-1]

    def gradient(self, value: int, scope: str) -> set[Tensor]:
        """The whole gradient of a value that nobody has summed yet."""
        parts = self.grads[value]
        if len(parts) > 1:
            total = self.fresh("gradient", value)
            self.launch("sum gradients", scope, set(parts), {total}, backward=True)
            self.grads[value] = [total]
        return set(self.grads[value])

    def _results(self) -> list[int]:
        read = {value for op in self.graph.ops for value in op.inputs}
        return [value for op in self.graph.ops for value in op.outputs if value not in read]

    def _learning(self) -> set[int]:
        """Values that depend on a parameter, and so have a gradient that somebody needs."""
        found: set[int] = set()
        for op in self.graph.ops:
            if op.kind in ("conv", "norm") or op.weights or found.intersection(op.inputs):
                found.update(op.outputs)
        return found
