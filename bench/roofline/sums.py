"""The pointwise work between convolutions as sums: ReLU of BatchNorms, shortcuts and upsampled images."""

from __future__ import annotations

from dataclasses import dataclass

from bench.roofline.trace import Graph, Op

_POINTWISE = ("norm", "relu", "add", "upsample")


@dataclass(frozen=True)
class Addend:
    """A stored value that enters a sum, through BatchNorm or not, each pixel repeated `factor` times."""

    value: int
    norm: Op | None
    factor: int


@dataclass(frozen=True)
class Sum:
    """`output` = addends added, through a ReLU or not. scope: the module of its last operator."""

    output: int
    addends: tuple[Addend, ...]
    relu: bool
    scope: str

    @property
    def norms(self) -> list[Addend]:
        return [addend for addend in self.addends if addend.norm is not None]

    @property
    def enlarges(self) -> bool:
        return any(addend.factor > 1 for addend in self.addends)


Node = Op | Sum


def nodes(graph: Graph) -> list[Node]:
    """The operators in order, with the pointwise ones gathered into the sums they make up.

    A sum ends where its value must be stored: something else than one pointwise operator reads it, a
    BatchNorm takes its statistics, or it has passed a ReLU, whose sign the backward pass needs.
    """
    consumers, producers = graph.consumers(), graph.producers()
    found: list[Node] = []
    stored = set(graph.inputs)
    for op in graph.ops:
        if op.kind in _POINTWISE:
            readers = consumers[op.outputs[0]]
            inner = len(readers) == 1 and readers[0].kind in ("add", "relu", "upsample")
            if op.kind != "relu" and inner:
                continue
            top = producers[op.inputs[0]] if op.kind == "relu" and op.inputs[0] not in stored else op
            found.append(
                Sum(op.outputs[0], _addends(graph, producers, stored, top), op.kind == "relu", op.scope)
            )
        else:
            found.append(op)
        stored.update(op.outputs)
    return found


def _addends(graph: Graph, producers: dict[int, Op], stored: set[int], top: Op) -> tuple[Addend, ...]:
    """What `top` adds up; a ReLU of a stored value is a sum of one."""
    whole = graph.values[top.outputs[0]].elements
    found: list[Addend] = []

    def walk(op: Op, norm: Op | None) -> None:
        norm = op if op.kind == "norm" else norm
        for value in op.inputs:
            if value in stored:
                found.append(Addend(value, norm, whole // graph.values[value].elements))
            else:
                walk(producers[value], norm)

    walk(top, None)
    return tuple(found)
