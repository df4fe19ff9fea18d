"""How a step is shared, and the rate that goes with it."""

import math

import pytest

from fastpose.errors import ConfigError
from fastpose.train.parallel.batch_plan import BatchPlan, plan_batches


@pytest.mark.parametrize(
    ("per", "scaling", "total", "rate"),
    [
        ("step", "none", 32, 1.0),
        ("process", "none", 128, 1.0),
        ("process", "linear", 128, 4.0),
        ("process", "sqrt", 128, 2.0),
    ],
)
def test_total_and_rate(per, scaling, total, rate):
    plans = [plan_batches(1000, 32, rank=rank, world=4, per=per, scaling=scaling) for rank in range(4)]
    assert {(plan.total, plan.rate, plan.drop_last) for plan in plans} == {(total, rate, True)}
    assert [plan.share for plan in plans] == [total // 4] * 4
    assert sum(plan.weight for plan in plans) == 1.0


def test_uneven_shares_are_weighted():
    plans = [plan_batches(100, 8, rank=rank, world=3) for rank in range(3)]
    assert [plan.share for plan in plans] == [2, 3, 3]
    assert math.isclose(sum(plan.weight for plan in plans), 1.0)


def test_alone_a_short_epoch_is_one_short_step():
    assert plan_batches(5, 8) == BatchPlan(total=8, share=8, rate=1.0, drop_last=False)
    assert plan_batches(8, 8).drop_last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 7, "batch_size": 8, "world": 2}, "only 7"),
        ({"length": 100, "batch_size": 3, "world": 4}, "without a sample"),
        ({"length": 30, "batch_size": 8, "world": 4, "per": "process"}, "a step of 32 samples"),
        ({"length": 100, "batch_size": 8, "world": 4, "scaling": "linear"}, "batch_per=process"),
    ],
    ids=["little_data", "small_batch", "little_data_per_process", "scaling_without_growth"],
)
def test_what_cannot_be_shared_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plan_batches(arguments.pop("length"), arguments.pop("batch_size"), **arguments)
