"""What the loop and the step cost beside forward, loss, backward and optimiser, in time of the processor.

Processor time of the calling thread does not grow where other work has the core, and all parts of an epoch
are taken from the same steps: a share of a percent can be told on a busy machine. torch must run on one
thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch


class LoopCost(NamedTuple):
    """Seconds of an epoch of `steps` steps. None is counted twice."""

    steps: int
    network: float  # input, forward, loss, backward, optimiser
    step: float  # all else that a step does: accuracy, guards, sums, reports
    feed: float  # waiting for batches and making them
    loop: float  # between the steps

    @property
    def own_share(self) -> float:
        """Of loop and step together, in parts of the network's time."""
        return (self.step + self.loop) / self.network


class Stopwatch:
    """Adds up the processor time of the calls that it wraps."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            begun = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                self.seconds += time.thread_time() - begun
                self.calls += 1

        return timed

    def along(self, items: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """The same of what an iterator takes for its items."""

        def timed(*args: Any) -> Iterator[Any]:
            following = self.around(iter(items(*args)).__next__)
            while True:
                try:
                    item = following()
                except StopIteration:
                    return
                yield item

        return timed


class _Called:
    """`thing`, called by another function."""

    def __init__(self, thing: Any, call: Callable[..., Any]) -> None:
        self.thing, self.call = thing, call

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.call(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.thing, name)


def loop_cost(trainer: Any, log: Any) -> LoopCost:
    """One epoch of a `fastpose.train.loop.Trainer` on a CPU, without its validation and its states."""
    step, network, feed, whole = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
    own: Any = trainer.step
    with ExitStack() as stack:
        for thing, name in (
            (own, "forward"),
            (own.objective, "network_input"),
            (own.objective, "loss"),
            (own.update, "backward"),
            (own.optimizer, "step"),
        ):
            stack.enter_context(patch.object(thing, name, network.around(getattr(thing, name))))
        stack.enter_context(patch.object(trainer.feed, "batches", feed.along(trainer.feed.batches)))
        stack.enter_context(patch.object(trainer, "step", _Called(own, step.around(own))))
        whole.around(trainer._epoch)(log)
    between = whole.seconds - step.seconds - feed.seconds
    return LoopCost(step.calls, network.seconds, step.seconds - network.seconds, feed.seconds, between)
