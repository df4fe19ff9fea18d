"""How many processes load."""

from __future__ import annotations

import os
from typing import Literal

import torch


def auto_workers(setting: int | Literal["auto"], device: torch.device, processes: int = 1) -> int:
    """Loader processes: as asked, or enough to feed the device without taking the CPU that computes.

    `processes` of training share the machine's cores.
    """
    if setting != "auto":
        return setting
    cores = max(1, len(os.sched_getaffinity(0)) // processes)
    return min(cores, 16) if device.type == "cuda" else (0 if cores <= 2 else min(4, cores // 4 + 1))
