"""Shares of batches: together the whole, in its order, whoever takes them."""

from itertools import chain

import numpy as np
import pytest

from fastpose.data.sampler import EpochSampler
from fastpose.data.sharding import RowsSampler, ShardedSampler, share_of
from fastpose.errors import ConfigError

GROUPS = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 5, 5, 6])


def steps(sampler: EpochSampler, epoch: int = 3, start: int = 0) -> list:
    sampler.set_epoch(epoch, start)
    return list(sampler)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [7, 8, 20])
def test_shares_are_even_and_follow_one_another(count, world):
    shares = [range(count)[share_of(count, rank, world)] for rank in range(world)]
    assert [thing for share in shares for thing in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["persons", "pictures"])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_processes_together_take_the_steps_of_one(world, groups):
    options = {"shuffle": True, "seed": 4, "drop_last": True, "groups": groups}
    alone = EpochSampler(13, 4, **options)
    ranks = [ShardedSampler(13, 4, rank=rank, world=world, **options) for rank in range(world)]
    for epoch, start in ((0, 0), (1, 0), (1, 2)):
        shares = [steps(rank, epoch, start) for rank in ranks]
        together = [list(chain(*parts)) for parts in zip(*shares, strict=True)]
        assert together == steps(alone, epoch, start)
    assert {len(rank) for rank in ranks} == {3}
    assert steps(alone, 0) != steps(alone, 1)


@pytest.mark.parametrize(
    ("length", "batch", "world", "drop_last"), [(9, 4, 2, False), (12, 2, 3, True), (2, 4, 3, False)]
)
def test_a_batch_that_leaves_a_process_idle_is_refused(length, batch, world, drop_last):
    with pytest.raises(ConfigError, match="leaves some of"):
        ShardedSampler(length, batch, rank=0, world=world, shuffle=True, drop_last=drop_last)


def test_ranks_count_from_zero():
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        ShardedSampler(8, 4, rank=2, world=2, shuffle=True)


def test_rows_come_in_order():
    assert [row for _, row in chain(*RowsSampler(3, 10, 4))] == [3, 4, 5, 6, 7, 8, 9]
    assert [len(batch) for batch in RowsSampler(3, 10, 4)] == [4, 3]
