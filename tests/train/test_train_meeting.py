"""Processes of one start find each other, and never those of a start before."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from fastpose.errors import TrainingError
from fastpose.train.parallel.meeting import connect_store, meet

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
WAIT = timedelta(seconds=20)
SIZE = 3


@pytest.fixture
def store(monkeypatch):
    """As torchrun keeps one from start to start."""
    kept = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(kept.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    return kept


class Comer(threading.Thread):
    def __init__(self, rank: int) -> None:
        super().__init__(daemon=True)
        self.rank, self.name_found = rank, ""
        self.start()

    def run(self) -> None:
        self.name_found = meet(connect_store(self.rank, WAIT), self.rank, SIZE, WAIT)


def names(comers: list[Comer]) -> set[str]:
    for comer in comers:
        comer.join(WAIT.total_seconds())
    return {comer.name_found for comer in comers}


def test_all_get_one_name_and_no_start_that_of_another(store):
    first = names([Comer(rank) for rank in (2, 0, 1)])
    early = [Comer(1), Comer(2)]
    time.sleep(0.3)
    assert not any(comer.name_found for comer in early), "nobody goes ahead on what an earlier start has left"
    second = names([*early, Comer(0)])
    assert len(first) == len(second) == 1
    assert "" not in first | second
    assert first != second


def test_those_who_do_not_come_are_named(store):
    comer = Comer(1)
    with pytest.raises(TrainingError, match=r"rank 2 of 3 processes did not come within 0\.5 s"):
        meet(connect_store(0, WAIT), 0, SIZE, timedelta(seconds=0.5))
    comer.join(WAIT.total_seconds())
    assert comer.name_found


def test_without_torchruns_store_rank_0_opens_one(store, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    monkeypatch.setenv("MASTER_PORT", "0")
    own = connect_store(0, WAIT)
    monkeypatch.setenv("MASTER_PORT", str(own.port))
    connect_store(1, WAIT).set("key", "value")
    assert own.get("key") == b"value"
    assert not store.check(["key"])
