"""Starts the processes of a run as torchrun does, by its variables, but within seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

PRELOAD = ["torch.distributed", "fastpose.train.tasks.pose_validation"]
LIMIT_S = 60


def context() -> Any:
    """Fresh processes that share the imports of one helper process, where nothing has run."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(PRELOAD)
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_ranks(work: Callable[..., None], size: int, *args: Any) -> list[Any]:
    """Starts `work(rank, *args)` in `size` processes."""
    port = free_port()
    processes = [
        context().Process(target=_rank, args=(work, rank, size, port, *args), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    return processes


def exit_codes(processes: list[Any], limit: float = LIMIT_S) -> list[int | None]:
    """Waits; the exit codes of all, None for one that had to be killed."""
    for process in processes:
        process.join(limit)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def run_ranks(work: Callable[..., None], size: int, *args: Any) -> None:
    codes = exit_codes(start_ranks(work, size, *args))
    assert codes == [0] * size, "see the processes' own messages"


def _rank(work: Callable[..., None], rank: int, size: int, port: int, *args: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    work(rank, *args)
    sys.stdout.flush()
