"""Kernels as what they read, write and multiply, and the list of them that a scheme runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

OPTIMIZER_BYTES = 32
"""Of fused Adam for each parameter: weight, gradient and both moments in float32, read and written."""

PARTS = (
    "stem", "layer1", "transitions", "branch 0", "branch 1", "branch 2", "branch 3", "fuse down", "fuse up",
    "fuse sum", "head",
)  # fmt: skip


class Tensor(NamedTuple):
    """A stored image of one sample; equal ones are the same memory."""

    name: str
    number: int
    serial: int
    elements: int


@dataclass
class Kernel:
    """One launch. A tensor that is read twice in it comes from memory once.

    kind: what it is for, such as `dgrad`. weights: elements of weights read or written. macs: of one sample.
    """

    kind: str
    part: str
    backward: bool = False
    reads: set[Tensor] = field(default_factory=set)
    writes: set[Tensor] = field(default_factory=set)
    weights: int = 0
    macs: int = 0

    @property
    def elements(self) -> int:
        """Of one sample, read and written."""
        return sum(tensor.elements for tensor in (*self.reads, *self.writes))


@dataclass(frozen=True)
class Work:
    """The kernels of a forward pass or of a training step under one scheme.

    batch: samples. itemsize: bytes of an element of images and weights. parameters: elements the optimizer
    updates, 0 in inference.
    """

    scheme: str
    batch: int
    itemsize: int
    parameters: int
    kernels: tuple[Kernel, ...]

    def image_bytes(self, backward: bool | None = None) -> int:
        """Bytes of activations moved for one sample; of one pass only where `backward` is given."""
        chosen = self._of(backward)
        return sum(kernel.elements for kernel in chosen) * self.itemsize

    def flops(self, backward: bool | None = None) -> int:
        """Of one sample; a multiply-add is two."""
        return 2 * sum(kernel.macs for kernel in self._of(backward))

    @property
    def optimizer_bytes(self) -> int:
        return OPTIMIZER_BYTES * self.parameters

    @property
    def total_bytes(self) -> int:
        """Of the whole batch: activations, weights and optimizer."""
        return sum(self.bytes_of(kernel) for kernel in self.kernels) + self.optimizer_bytes

    def bytes_of(self, kernel: Kernel) -> int:
        """What a kernel moves for the whole batch."""
        return (kernel.elements * self.batch + kernel.weights) * self.itemsize

    def only(self, part: str) -> Work:
        """The kernels of one part, without the optimizer."""
        chosen = tuple(kernel for kernel in self.kernels if kernel.part == part)
        return Work(self.scheme, self.batch, self.itemsize, 0, chosen)

    def parts(self) -> list[str]:
        """Those of PARTS that occur, then the others by name."""
        found = {kernel.part for kernel in self.kernels}
        return [part for part in PARTS if part in found] + sorted(found.difference(PARTS))

    def _of(self, backward: bool | None) -> Iterable[Kernel]:
        return [kernel for kernel in self.kernels if backward in (None, kernel.backward)]


def part_of(scope: str) -> str:
    """The part of a network that a module belongs to, by HRNet's names; else the first name of its path."""
    if found := re.search(r"\bbranches\.(\d)", scope):
        return f"branch {found[1]}"
    if found := re.search(r"\bfuse_layers\.(\d+)\.(\d+)", scope):
        return "fuse up" if int(found[2]) > int(found[1]) else "fuse down"
    first = scope.split(".")[0] or "network"
    if "fuse_layers" in scope:
        return "fuse sum"
    if first.startswith("transition"):
        return "transitions"
    if first == "final_layer":
        return "head"
    return "stem" if re.fullmatch(r"(conv|bn|relu)\d*", first) else first
