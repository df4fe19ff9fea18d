"""A whole step, of training or of prediction, as one CUDA graph for each shape of batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fastpose.nn import capture
from fastpose.nn.staging import Staging
from fastpose.nn.streams import rehearsal

logger = logging.getLogger(__name__)

WARMUP = 3
"""Steps of a shape before its capture: compiling, autotuning and lazy allocations happen in them."""
DDP_WARMUP = 11
"""The same for DistributedDataParallel, which regroups its buckets and takes its timings in its first ten."""
MAX_SHAPES = 8
WORTH = 16
"""Replays that pay for a capture and the steps before it."""
MAX_RESETS = 10
"""Resets in a row without that many replays, after which no capture is tried any more."""

Body = Callable[[dict[str, Tensor]], Tensor]


class StepGraph:
    """Runs `body(batch)` on the device, from the fourth batch of a shape on as a replayed CUDA graph.

    The first steps of a shape are ordinary ones on the capture's stream. They count: nothing has to be put
    back after them, a capture changes nothing on the device, and a graphed run does what an ungraphed one
    does. A shape that comes up once, such as a short last batch, is never captured. Graphs share their
    memory, so more shapes need hardly more of it.

    Where a capture is impossible every step runs ungraphed, and `reason` and one line of log say why: the
    device is the CPU, `why_not` is given, or the capture itself failed.

    Args:
        body: batch on the device -> a tensor that is valid until the next step. It may not wait for the
            device; what it changes must be tensors that live on.
        device: where the batches go.
        why_not: what forbids a capture, empty for nothing.
        quiet: leaves out the line of log, for a caller that chose this.
        warmup: steps of a shape before its capture.
        what: how messages call it.
        max_shapes: of batches, MAX_SHAPES if None; any more run ungraphed.
    """

    def __init__(
        self,
        body: Body,
        device: torch.device,
        *,
        why_not: str = "",
        quiet: bool = False,
        warmup: int = WARMUP,
        what: str = "the training step",
        max_shapes: int | None = None,
    ) -> None:
        self.body, self.device, self.warmup = body, device, warmup
        self.what, self.max_shapes = what, max_shapes
        self._staged = capture.can_capture(device)
        self.reason = why_not or ("" if self._staged else f"the device is {device}")
        self._shapes: dict[Any, _Shape] = {}
        self._pool: Any = None
        self._steps = self._replays = self._resets = 0
        if self.reason and not quiet:
            level = logging.DEBUG if device.type == "cpu" else logging.INFO  # nobody expects one on a CPU
            logger.log(level, "%s runs without a CUDA graph: %s", self.what, self.reason)

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """batch: names -> tensors on any device; copied asynchronously from pinned host memory."""
        self._steps += 1
        if not self._staged:
            return self.body(dict(batch))
        shape = self._shape(batch)
        if shape is None:
            return self.body({name: x.to(self.device, non_blocking=True) for name, x in batch.items()})
        inputs = shape.staging.put(batch)
        if not self.reason and shape.graph is None and shape.steps >= self.warmup:
            self._capture(shape, inputs)
        if shape.graph is not None:
            self._replays += 1
            shape.graph.replay()
            return shape.output
        shape.steps += 1
        return self.body(inputs) if self.reason else self._warm_up(inputs)

    @property
    def captured(self) -> int:
        """Shapes of batches that have a graph."""
        return sum(shape.graph is not None for shape in self._shapes.values())

    def reset(self, why: str = "it was asked for") -> None:
        """Drops all graphs, for a model or an optimizer that is not the captured one any more.

        Where this keeps happening before a graph has paid, such as with options that change with each step,
        it is the last time; `why` is then in `reason`.
        """
        if self.captured:
            torch.cuda.synchronize(self.device)  # a replay may still use what goes
        elif self.reason:
            return
        self._shapes.clear()
        self._pool = None  # one that no graph holds any more cannot be captured into
        if self._steps:
            self._resets = self._resets + 1 if self._replays < WORTH else 0
        self._steps = self._replays = 0
        if self._resets >= MAX_RESETS and not self.reason:
            self.reason = f"it would be captured anew every few steps ({why})"
            logger.warning("%s runs without a CUDA graph: %s", self.what, self.reason)

    def _shape(self, batch: Mapping[str, Tensor]) -> _Shape | None:
        key = tuple((name, x.shape, x.dtype, x.stride(), x.is_cuda) for name, x in batch.items())
        if key not in self._shapes:
            if len(self._shapes) >= (self.max_shapes or MAX_SHAPES):
                return None
            self._shapes[key] = _Shape(Staging(batch, self.device))
        return self._shapes[key]

    def _warm_up(self, inputs: dict[str, Tensor]) -> Tensor:
        main, stream = torch.cuda.current_stream(self.device), capture.capture_stream(self.device)
        stream.wait_stream(main)
        with torch.cuda.stream(stream), rehearsal():
            output = self.body(inputs)
        main.wait_stream(stream)
        return output

    def _capture(self, shape: _Shape, inputs: dict[str, Tensor]) -> None:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            shape.graph, shape.output = capture.capture(lambda: self.body(inputs), self.device, self._pool)
        except Exception as error:  # what cannot be captured can still be run, and then says what is wrong
            cause = error.__context__ or error  # what broke the capture, not the end of it
            self.reason = f"its capture failed: {type(cause).__name__}: {' '.join(str(cause).split())}"
            logger.warning("%s runs without a CUDA graph: %s", self.what, self.reason)


class _Shape:
    """What belongs to one shape of batch."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.steps = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.output = torch.empty(0)


def warmup_of(forward: object) -> int:
    """Steps to run before a capture of `forward`."""
    return DDP_WARMUP if isinstance(forward, DistributedDataParallel) else WARMUP
