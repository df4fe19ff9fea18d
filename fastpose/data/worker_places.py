"""What each data worker is at, known to the process that waits for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
from torch.utils.data import get_worker_info

SAMPLE_TIMEOUT_S = 60.0
"""For one sample, and for a worker to start: a network file system may stand still for half a minute."""

BATCH_TIMEOUT_S = 5.0
"""From a worker's last sample to its batch: memory is shared and a name is sent."""

IDLE = -1


class WorkerPlaces:
    """A table in shared memory that workers keep: process, row of the sample under way, since when."""

    def __init__(self, workers: int) -> None:
        # Of multiprocessing: unlike torch's it lies in a file where /dev/shm is full.
        self._table = multiprocessing.RawArray("d", 3 * workers)
        self._rows[:] = IDLE, IDLE, time.monotonic()

    def at(self, row: int) -> None:
        """Called by a worker before sample `row`, and with IDLE behind the last one of a batch."""
        info = get_worker_info()
        if info is not None:
            self._rows[info.id] = (os.getpid(), row, time.monotonic())

    def stuck(self) -> str:
        """Why nothing will come any more: a sample that takes too long, or a batch lost on its way; or ""."""
        rows = self._rows.copy()
        age = time.monotonic() - rows[:, 2]
        slow = rows[(rows[:, 1] != IDLE) & (age > SAMPLE_TIMEOUT_S)]
        if len(slow):
            for process in slow[:, 0]:
                os.kill(int(process), signal.SIGTERM)  # torch's workers then end, and nobody waits for them
            return f"sample {_numbers(slow)} takes longer than {SAMPLE_TIMEOUT_S:g} s"
        limit = [BATCH_TIMEOUT_S if process != IDLE else SAMPLE_TIMEOUT_S for process in rows[:, 0]]
        if (rows[:, 1] == IDLE).all() and (age > limit).all():
            return "a batch was lost on its way; the worker has printed why"
        return ""

    def of(self, message: str) -> str:
        """Which samples the workers were at whose process numbers `message` names; "" where none was."""
        rows = self._rows
        lost = rows[[f"{process:.0f}" in message for process in rows[:, 0]] & (rows[:, 1] != IDLE)]
        return f", at sample {_numbers(lost)}" if len(lost) else ""

    @property
    def _rows(self) -> np.ndarray:
        return np.frombuffer(self._table).reshape(-1, 3)


def _numbers(rows: np.ndarray) -> str:
    return ", ".join(f"{row:.0f}" for row in rows[:, 1])
