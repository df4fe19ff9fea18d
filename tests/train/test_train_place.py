"""A process's place among the others, from what torchrun says."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from fastpose.errors import ConfigError, TrainingError
from fastpose.train.parallel import place
from fastpose.train.parallel.distributed import start_world

CPU = torch.device("cpu")
VARIABLES = {
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": None}, "without RANK"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK=first"),
        ({"MASTER_PORT": ""}, "without MASTER_PORT"),
    ],
    ids=["missing", "not_a_number", "empty"],
)
def test_incomplete_variables_are_an_error(monkeypatch, change, message):
    for name, value in (VARIABLES | change).items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        start_world("cpu")


def test_place_is_read_from_the_variables(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    assert place.torchrun_place() == place.Place(rank=1, size=4, local_rank=1, local_size=2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert place.torchrun_place() is None


def test_each_process_takes_the_device_of_its_number(monkeypatch):
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert place.own_device("auto", place.Place(3, 4, 1, 2)) == torch.device("cuda", 1)
    assert taken == [1]
    with pytest.raises(ConfigError, match="shows 2 CUDA devices: give torchrun --nproc-per-node=2"):
        place.own_device("cuda", place.Place(2, 4, 2, 4))
    with pytest.raises(ConfigError, match=r"run\.device=cuda:0: 2 processes would share it"):
        place.own_device("cuda:0", place.Place(0, 2, 0, 2))
    assert place.own_device("cpu", place.Place(2, 4, 2, 4)) == CPU


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_unreachable_others_are_a_typed_error(monkeypatch):
    for name, value in (VARIABLES | {"MASTER_ADDR": "256.256.256.256"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fastpose.train.parallel.distributed.MEETING_TIMEOUT", timedelta(seconds=1))
    with pytest.raises(TrainingError, match="rank 1 of 4 cannot reach the others through 256"):
        start_world("cpu")
