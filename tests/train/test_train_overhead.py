"""What the training loop and its step cost beside forward, loss, backward and optimiser."""

import time
from types import SimpleNamespace

import pytest

from bench.bench_step_overhead import epoch_cost
from bench.loop_cost import Stopwatch, loop_cost


def busy(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_overhead_is_small():
    """In processor time, which a busy machine hardly changes; most of it does not grow with the batch."""
    cost = epoch_cost("hrnet_w18_small", (128, 128), batch=8, steps=3)
    print(f"step {cost.step / cost.network:.4f}, loop {cost.loop / cost.network:.4f}")
    assert cost.steps == 3
    assert cost.network > 0.1, "the network's own time must have been seen"
    assert 0 < cost.loop < 0.01 * cost.network  # measured 0.0004 to 0.002, an epoch's end included
    assert 0 < cost.own_share < 0.06  # measured 0.013 at a batch of 16, 0.035 at 4


class Work:
    """A step, a feed and a loop that take known times."""

    def __init__(self):
        self.objective = SimpleNamespace(network_input=lambda: busy(0.01), loss=lambda: busy(0.01))
        self.update = SimpleNamespace(backward=lambda: busy(0.02))
        self.optimizer = SimpleNamespace(step=lambda: busy(0.02))
        self.total = 7

    def forward(self):
        busy(0.04)

    def __call__(self, batch):
        busy(0.03)
        for part in (self.objective.network_input, self.forward, self.objective.loss):
            part()
        self.update.backward()
        self.optimizer.step()


class Loop:
    def __init__(self):
        self.step, self.feed = Work(), SimpleNamespace(batches=self.batches)

    def batches(self, count):
        for number in range(count):
            busy(0.015)
            yield number

    def _epoch(self, log):
        for batch in self.feed.batches(3):
            self.step(batch)
            assert self.step.total == 7
            busy(0.005)


def test_every_part_is_told_once():
    loop = Loop()
    before = dict(vars(loop.step))
    cost = loop_cost(loop, None)
    assert cost.steps == 3
    found = [cost.network, cost.step, cost.feed, cost.loop]
    assert found == pytest.approx([0.3, 0.09, 0.045, 0.015], rel=0.15, abs=3e-3)
    assert cost.own_share == pytest.approx(0.35, rel=0.15)
    assert vars(loop.step) == before, "nothing stays wrapped"


def test_stopwatch_passes_results_and_errors_on():
    watch = Stopwatch()
    assert watch.around(lambda x, y=0: x + y)(2, y=3) == 5
    with pytest.raises(KeyError):
        watch.around({}.__getitem__)("a")
    assert list(watch.along(iter)([1, 2])) == [1, 2]
    assert watch.calls == 5
