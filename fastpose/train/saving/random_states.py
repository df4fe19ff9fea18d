"""torch's random numbers of every process of a run, saved and set again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose.errors import CheckpointError

Gather = Callable[[np.ndarray], np.ndarray]


class RandomStates:
    """`rows` (processes, N) uint8: each process's CPU generator, then the one of its current CUDA device.

    All processes `collect`, one of them saves and loads (`state_dict`, `load_state_dict`), and all `restore`.
    """

    def __init__(self) -> None:
        self.rows = torch.empty(0, 0, dtype=torch.uint8)

    def collect(self, gather: Gather | None = None) -> None:
        """Takes the generators as they are. gather: from a process's (1, N) array to all of them by rank."""
        parts = [torch.get_rng_state()]
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_rng_state())
        row = torch.cat(parts)[None]
        self.rows = torch.from_numpy(gather(row.numpy()).copy()) if gather else row

    def restore(self, rank: int = 0, world: int = 1) -> None:
        """Sets the generators of process `rank` of `world`.

        With as many processes as saved, each goes on where it was. With another number rank 0 does, and the
        others start from seeds that follow from its state and their rank.
        """
        if not len(self.rows):
            return
        if rank and world != len(self.rows):
            digest = hashlib.sha256(self.rows[0].numpy().tobytes() + str(rank).encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "little"))
            return
        length = len(torch.get_rng_state())
        cpu, cuda = self.rows[rank].split([length, self.rows.shape[1] - length])
        torch.set_rng_state(cpu.clone())
        if torch.cuda.is_available() and len(cuda):
            torch.cuda.set_rng_state(cuda.clone())

    def state_dict(self) -> dict[str, Tensor]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """CheckpointError for anything but what `state_dict` gives."""
        rows = state.get("rows") if isinstance(state, dict) else None
        if not isinstance(rows, Tensor) or rows.dtype != torch.uint8 or rows.ndim != 2:
            raise CheckpointError("its random generators are not of this version of fastpose")
        self.rows = rows
