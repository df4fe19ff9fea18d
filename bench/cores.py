"""The core and the threads that a row on a CPU runs on."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

WATCH_S = 0.1


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """PyTorch and OpenCV on so many threads, a single one on the core with least to do; 0 changes nothing."""
    if not threads:
        yield
        return
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch_threads, cv2 = torch.get_num_threads(), sys.modules.get("cv2")
    cv2_threads = cv2.getNumThreads() if cv2 else 0
    torch.set_num_threads(threads)
    if cv2:
        cv2.setNumThreads(threads)
    if cores and threads == 1:
        os.sched_setaffinity(0, {idlest(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        if cv2:
            cv2.setNumThreads(cv2_threads)
        if cores:
            os.sched_setaffinity(0, cores)


def idlest(cores: set[int]) -> int:
    """The core of `cores` that was idle longest just now; the last of them where the system does not tell."""
    before = _idle_ticks()
    time.sleep(WATCH_S)
    after = _idle_ticks()
    return max(cores, key=lambda core: (after.get(core, 0) - before.get(core, 0), core))


def _idle_ticks() -> dict[int, int]:
    try:
        text = Path("/proc/stat").read_text()
    except OSError:
        return {}
    return {
        int(core): int(idle) for core, idle in re.findall(r"^cpu(\d+)(?: \d+){3} (\d+)", text, re.MULTILINE)
    }
