"""What a call does on the GPU, by the profiler: how many kernels, and how long it waits for work."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.rows import Side

CALLS = 3
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")


def device_figures(side: Side, inputs: Sequence[Any]) -> dict[str, float]:
    """`kernels` a call, and `idle`: the share of the time between first and last kernel with none running."""
    side(*inputs)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(CALLS):
            side(*inputs)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return summarize(json.loads(path.read_text())["traceEvents"], CALLS)


def summarize(events: Sequence[Mapping[str, Any]], calls: int) -> dict[str, float]:
    """The figures of `device_figures` from the events of a Chrome trace of `calls` calls.

    Raises:
        RuntimeError: the trace has no kernel, as where the profiler may not look at the GPU.
    """
    work = [event for event in events if event.get("cat") in DEVICE_WORK]
    kernels = sum(event["cat"] == "kernel" for event in work)
    if not kernels:
        raise RuntimeError("the profiler saw no kernel")
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in work)
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return {"kernels": kernels / calls, "idle": 1 - busy / (end - spans[0][0])}


def peak_bytes(run: Side, inputs: Sequence[Any]) -> float:
    """Memory of one call at its fullest, on top of what is allocated before it; `run` has no graph."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(*inputs)
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before)


def figures_of(sides: Mapping[str, Any], inputs: Callable[[], Sequence[Any]]) -> dict[str, float]:
    """`kernels`, `idle` and `peak GB` of every side; `side.run` is the call without a graph, or None.

    A rival that could not be timed is left out here as well.
    """
    found: dict[str, float] = {}
    given = inputs()
    for name, side in sides.items():
        try:
            own = device_figures(side, given)
            if side.run is not None:
                own["peak GB"] = peak_bytes(side.run, given) / 1e9
        except Exception:
            if name == next(iter(sides)):
                raise
            continue
        found |= {f"{name}: {figure}": float(f"{value:.4g}") for figure, value in own.items()}
    return found
