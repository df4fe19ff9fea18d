"""A batch on its way out of a worker: through shared memory, or through a pipe where there is too little."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate, get_worker_info

from fastpose.data.warp_batch import collate_parts
from fastpose.errors import FastposeError

SHARED = "/dev/shm"
"""Where Linux keeps shared memory, whatever torch's sharing strategy: "file_system" needs the same room."""

Samples = list[dict[str, np.ndarray]]
_NO_ROOM = ("shared memory", "No space left", "Too many open files")


@dataclass(frozen=True)
class Piped:
    """The samples of a batch for which there was no room in shared memory, and what torch said."""

    samples: Samples
    reason: str

    @property
    def nbytes(self) -> int:
        return _nbytes(self.samples)


def join_samples(samples: Samples) -> dict[str, torch.Tensor]:
    """One batch of tensors: every field stacked, parts of pictures end to end (`collate_parts`)."""
    return collate_parts(samples) if "pixels" in samples[0] else default_collate(samples)


def hand_over(samples: Samples | FastposeError) -> Any:
    """The samples of a batch joined; in a worker, as tensors in shared memory or as `Piped`. An error stays.

    Every tensor moves to shared memory here: torch would do so in a thread, whose failure loses the batch.
    """
    if isinstance(samples, FastposeError):
        return samples
    if get_worker_info() is None:
        return join_samples(samples)
    # An attempt that fails leaves a name behind; the other workers may want as much at the same moment.
    room = shared_room()
    if room < 2 * _nbytes(samples):
        return Piped(samples, f"{room / 1024:.0f} KB are free")
    try:
        return {name: tensor.share_memory_() for name, tensor in join_samples(samples).items()}
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _NO_ROOM):
            raise
        return Piped(samples, str(error).splitlines()[0])


def shared_room() -> float:
    """Free bytes of shared memory; infinity where the system does not tell."""
    try:
        state = os.statvfs(SHARED)
    except OSError:
        return math.inf
    return state.f_bavail * state.f_frsize


def _nbytes(samples: Samples) -> int:
    return sum(array.nbytes for sample in samples for array in sample.values())
