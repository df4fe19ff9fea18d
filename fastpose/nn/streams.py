"""Branches of a network side by side on CUDA streams, so that small kernels fill the GPU together."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

Mode = bool | Literal["auto"]
_mode: Mode = "auto"
_rehearsing = False


def get_branch_streams() -> Mode:
    """What `set_branch_streams` chose last; "auto" at the start."""
    return _mode


def set_branch_streams(mode: Mode) -> None:
    """Chooses for the whole process whether `run_branches` overlaps branches on a GPU.

    True: always. False: never. "auto": while a CUDA graph is captured; outside of one the launches take
    longer than what they overlap. Never under torch.compile, whose graph is one stream, and never on the CPU.
    The results are the same. A graph that is captured already stays as it is.

    Raises:
        ValueError: `mode` is something else.
    """
    global _mode
    if mode not in (True, False, "auto"):
        raise ValueError(f"mode: expected True, False or 'auto', got {mode!r}")
    _mode = mode


@contextlib.contextmanager
def use_branch_streams(mode: Mode) -> Iterator[None]:
    """`with use_branch_streams(False): ...`, then the mode before is back. Raises as `set_branch_streams`."""
    before = _mode
    set_branch_streams(mode)
    try:
        yield
    finally:
        set_branch_streams(before)


@contextlib.contextmanager
def rehearsal() -> Iterator[None]:
    """Runs before a capture go through the streams that the capture will use, as "auto" chooses there.

    Autograd's accumulators, cuBLAS workspaces and autotuned choices belong to a stream; what exists already
    when the capture begins cannot disturb it.
    """
    global _rehearsing
    before, _rehearsing = _rehearsing, True
    try:
        yield
    finally:
        _rehearsing = before


def run_branches(runs: Sequence[Callable[[Tensor], Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """`runs[i](inputs[i])` for every i, side by side where `set_branch_streams` says so.

    The first one stays on the current stream. The others start once everything before this call is done, and
    everything after it waits for them. Autograd runs each backward on the stream of its forward and orders
    producers and consumers itself, so the backward overlaps in the same way.

    Memory: a block goes back to the stream that allocated it. Without gradients the fork and the join order
    every reuse: an input's block is freed by the caller, after the join, and an output's block is allocated
    again only after the next fork. With gradients a block may be freed in the midst of the backward, where
    other waits hold; each tensor that crosses is therefore recorded on the stream that reads it. Under
    capture the allocator keeps such blocks until the capture ends: the ends of branches, some 2 % of what
    HRNet keeps for its backward.

    Args:
        runs: as many as `inputs`; none may read what another one writes.
        inputs: on one device.

    Raises:
        ValueError: the lengths differ.
    """
    if len(runs) != len(inputs):
        raise ValueError(f"runs: expected {len(inputs)}, one for each input, got {len(runs)}")
    if len(runs) < 2 or not _overlaps(inputs[0]):
        return [run(x) for run, x in zip(runs, inputs, strict=True)]
    return _fork_and_join(runs, inputs)


def side_streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """The same `count` streams at every call: memory of a stream is reused by that stream alone."""
    return [_side_stream(device, number) for number in range(count)]


def _overlaps(x: Tensor) -> bool:
    if _mode is False or torch.compiler.is_compiling() or not x.is_cuda:
        return False
    return _mode is True or _rehearsing or torch.cuda.is_current_stream_capturing()


def _fork_and_join(runs: Sequence[Callable[[Tensor], Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    main = torch.cuda.current_stream(inputs[0].device)
    sides = side_streams(inputs[0].device, len(runs) - 1)
    fork = main.record_event()
    outputs = []
    for side, run, x in zip(sides, runs[1:], inputs[1:], strict=True):
        side.wait_event(fork)
        with torch.cuda.stream(side):
            outputs.append(run(x))
    first = runs[0](inputs[0])
    for side, x, output in zip(sides, inputs[1:], outputs, strict=True):
        main.wait_event(side.record_event())
        if torch.is_grad_enabled():
            x.record_stream(side)
            output.record_stream(main)
    return [first, *outputs]


@functools.cache
def _side_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
