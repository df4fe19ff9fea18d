"""What torch.cuda needs for a capture that other threads and other streams cannot break."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def can_capture(device: torch.device) -> bool:
    """Whether steps on `device` can be held in a graph."""
    return device.type == "cuda"


def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on `device`; one without an index is the current one.

    DistributedDataParallel keeps autograd's accumulators, which belong to the stream they were made on: make
    it inside `with torch.cuda.stream(capture_stream(device))` if its step is to be captured.
    """
    return _stream(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(torch.device("cuda", index))


def capture(
    run: Callable[[], Tensor], device: torch.device, pool: Any
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A graph of what `run` does, and its output, which every replay fills; `run` computes nothing now.

    Only this thread is held to the rules of a capture: a loader's thread goes on pinning memory. An error
    of `run` or of the capture is raised with the current stream as it was.
    """
    graph, main = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    where = torch.cuda.graph(graph, pool, capture_stream(device), capture_error_mode="thread_local")
    try:
        with _no_stale_streams(), where:
            output = run()
    finally:
        torch.cuda.set_stream(main)  # torch.cuda.graph leaves its own one behind where its end fails
    return graph, output


@contextlib.contextmanager
def _no_stale_streams() -> Iterator[None]:
    """Lets accumulators that a live autograd graph keeps on another stream follow the capture."""
    follow = getattr(torch.autograd.graph, "set_override_stale_capture_stream", None)  # torch >= 2.13
    if follow is None:
        yield
        return
    follow(True)
    try:
        yield
    finally:
        follow(False)
