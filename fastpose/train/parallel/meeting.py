"""How the processes of one start find each other in a store that remembers those of earlier starts."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

from fastpose.errors import TrainingError

POLL_S = 0.02


def connect_store(rank: int, wait: timedelta) -> dist.TCPStore:
    """A connection to the store at MASTER_ADDR:MASTER_PORT, which torchrun keeps, or else rank 0 opens."""
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not kept,
        multi_tenant=True,
        wait_for_workers=False,
        timeout=wait,
    )


def job_of_store(store: dist.TCPStore) -> str:
    """A name that all starts which share this store have in common, as those of one torchrun do."""
    return store.compare_set("fastpose/job", "", uuid.uuid4().hex).decode()


def meet(store: dist.TCPStore, rank: int, size: int, wait: timedelta) -> str:
    """A name for this start that its `size` processes alone share; prefix all keys of the store with it.

    Since torchrun keeps one store over its restarts, a process that is early would read the addresses of
    processes that are dead; and the restarts that torchrun counts differ between machines. So each process
    asks rank 0 under a name that nobody had before, and rank 0 waits until all have taken its answer.

    Raises:
        TrainingError: not everyone came within `wait`; names who did not.
        RuntimeError: the store or rank 0 gave no answer within `wait`.
    """
    name = uuid.uuid4().hex
    if rank:
        store.set(f"fastpose/asks/{rank}", name)
        name = store.get(f"fastpose/answer/{name}").decode()
        store.set(f"fastpose/{name}/came/{rank}", "")
        return name
    missing, deadline = set(range(1, size)), time.monotonic() + wait.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"fastpose/asks/{other}"]):
                asker = store.get(f"fastpose/asks/{other}").decode()
                store.set(f"fastpose/answer/{asker}", name)
            if store.check([f"fastpose/{name}/came/{other}"]):
                missing.discard(other)
        if missing and time.monotonic() > deadline:
            who = ", ".join(map(str, sorted(missing)))
            raise TrainingError(
                f"rank {who} of {size} processes did not come within {wait.total_seconds():g} s"
            )
        time.sleep(POLL_S)
    return name
