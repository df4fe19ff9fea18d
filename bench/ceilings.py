"""What this machine can do at most, measured in the same run: moving memory, multiplying matrices."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from bench.rows import Limit, Side
from bench.timing import PATIENCE, make_timer, watched

COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}  # of the source; far more than any cache
MATRIX = {"cpu": 1024, "cuda": 8192}
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
READINGS = 7


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second of a large copy, read and written both counted, and FLOPs a second of a matrix product.

    Work that only reads or only writes can pass a copy, so those two are measured as well.
    """

    copy_bytes_per_s: float
    flops_per_s: float
    read_bytes_per_s: float
    write_bytes_per_s: float


@functools.cache
def measure_ceilings(device: str, threads: int, dtype: str = "") -> Ceilings:
    """The best of a few readings on random data; measured once a process for each argument.

    threads: those that torch uses at the moment, so that another number is another measurement.
    """
    copy, read, write = _bandwidths(device, COPY_BYTES[device])
    size = MATRIX[device]
    left, right = (
        torch.randn(size, size, device=device).to(getattr(torch, dtype or DTYPES[device])) for _ in "ab"
    )
    product = _best(device, lambda: left @ right)
    return Ceilings(copy, 2 * size**3 / product, max(copy, read), max(copy, write))


def _bandwidths(device: str, size: int) -> tuple[float, float, float]:
    """Bytes a second of copying, reading and writing a tensor of `size` bytes."""
    source = torch.rand(size // 4, device=device)
    target = torch.empty_like(source)
    copy = _best(device, lambda: target.copy_(source))
    # One core adds integers faster than it adds floats, a GPU the other way round.
    read = min(_best(device, source.sum), _best(device, source.view(torch.int64).sum))
    write = _best(device, lambda: target.fill_(1))
    return 2 * size / copy, size / read, size / write


def floor_seconds(limit: Limit, ceilings: Ceilings) -> float:
    """The time below which the work cannot be done."""
    bandwidth = getattr(ceilings, f"{limit.traffic}_bytes_per_s")
    return max(limit.bytes / bandwidth, limit.flops / ceilings.flops_per_s)


def _best(device: str, run: Side) -> float:
    """The shortest of READINGS that had the core to themselves, or of PATIENCE times as many."""
    timer = make_timer("events" if device == "cuda" else "wall", run, [()], device)
    timer.warm_up()
    best, quiet = float("inf"), 0
    for _ in range(PATIENCE * READINGS):
        seconds, lost = watched(timer.seconds)
        best, quiet = min(best, seconds), quiet + (not lost)
        if quiet == READINGS:
            break
    return best
