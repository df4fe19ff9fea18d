"""A callable as one CUDA graph."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.timing import WARM_UPS
from fastpose.nn.streams import rehearsal


class Captured:
    """`run(*inputs)` captured once and replayed at every call, with the inputs copied to where it reads them.

    Args:
        run: launches on the current stream, or forks from it and joins again; never waits for the device.
        inputs: CUDA tensors of the shapes, dtypes and memory formats that `run` shall see. They are kept and
            written to: a copy casts and reorders what a caller gives.
        restore: undoes what the calls before the capture and the first replay have changed.

    The output is the same memory at every call, and whole until any of these graphs runs again.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        inputs: Sequence[Tensor],
        restore: Callable[[], object] = lambda: None,
    ) -> None:
        self.inputs = tuple(inputs)
        stream = _stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), rehearsal():
            for _ in range(WARM_UPS):
                run(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        alive = next(iter(_alive), None)
        pool = alive.graph.pool() if alive else None
        with torch.cuda.graph(self.graph, pool=pool, stream=stream):
            self.output = run(*self.inputs)
        _alive.add(self)
        restore()

    def __call__(self, *inputs: Tensor) -> Any:
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.output


# They never run at once, so all graphs share one pool, and the stream that its memory belongs to: a training
# step keeps tens of gigabytes of activations.
_alive: weakref.WeakSet[Captured] = weakref.WeakSet()


@functools.cache
def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()
