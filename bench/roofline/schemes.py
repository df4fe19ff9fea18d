"""The named schemes: which kernels a training step or a forward pass runs under each."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.roofline.compiled import Compiled
from bench.roofline.eager import Eager, floor
from bench.roofline.fused import Fused
from bench.roofline.inference import Folded, Inductor
from bench.roofline.kernels import Kernel, Work
from bench.roofline.trace import Graph

_Kernels = tuple[Kernel, ...]

TRAINING: dict[str, tuple[str, Callable[[Graph], _Kernels]]] = {
    "a": ("eager, one kernel for each operator", lambda g: Eager(g, training=True).run(True)),
    "b": ("torch.compile: passes between convolutions fused", lambda g: Compiled(g, moments=False).run(True)),
    "f": ("b with fused sums, 1x1 convolutions by moments", lambda g: Compiled(g, moments=True).run(True)),
    "p": ("BatchNorm inside the convolutions, dz stored", lambda g: Fused(g, "stored").run(True)),
    "c": ("p with dz formed where it is read", lambda g: Fused(g, "formed").run(True)),
    "x": ("c with dgrad and wgrad in one kernel", lambda g: Fused(g, "merged").run(True)),
    "d": ("floor: each pass of a convolution, nothing else", lambda g: floor(g, training=True)),
}
INFERENCE: dict[str, tuple[str, Callable[[Graph], _Kernels]]] = {
    "a": ("eager, one kernel for each operator", lambda g: Eager(g, training=False).run(False)),
    "b": ("torch.compile: convolutions and fused sums", lambda g: Inductor(g).run(False)),
    "t": (
        "BatchNorm folded, shortcut and ReLU in the epilogue",
        lambda g: Folded(g, moments=False).run(False),
    ),
    "c": ("t with 1x1 convolutions inside the sums", lambda g: Folded(g, moments=True).run(False)),
    "d": ("floor: the convolutions, nothing else", lambda g: floor(g, training=False)),
}


def work(
    graph: Graph,
    scheme: str,
    *,
    training: bool = True,
    batch: int = 64,
    dtype: torch.dtype = torch.bfloat16,
) -> Work:
    """The kernels of one training step (forward, backward, optimizer) or of one forward pass.

    Args:
        graph: of `trace`.
        scheme: a key of TRAINING or INFERENCE.
        batch: samples. dtype: of activations, their gradients and the weights that the convolutions read.

    Raises:
        ValueError: the scheme is not one of the known ones, or the batch is not positive.
    """
    schemes = TRAINING if training else INFERENCE
    if scheme not in schemes:
        kind = "training" if training else "inference"
        raise ValueError(f"scheme: expected one of {', '.join(schemes)} for {kind}, got {scheme!r}")
    if batch < 1:
        raise ValueError(f"batch: expected at least 1, got {batch}")
    kernels = schemes[scheme][1](graph)
    return Work(scheme, batch, dtype.itemsize, graph.parameters if training else 0, kernels)
