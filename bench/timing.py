"""Interleaved A/B timing: each round times both sides, so that a drift of the machine meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds, in seconds; `ratio` is the median of the rounds' own baseline / candidate."""

    baseline: float
    candidate: float
    ratio: float


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare(
    baseline: Callable[[], object], candidate: Callable[[], object], *, rounds: int = 15, repeats: int = 10
) -> Comparison:
    """Times both in turns, `repeats` calls of the candidate, the shorter one, for a call of the baseline."""
    baseline(), candidate()  # warm-up
    pairs = [(seconds(baseline), seconds(candidate, repeats)) for _ in range(rounds)]
    return Comparison(
        baseline=statistics.median(slow for slow, _ in pairs),
        candidate=statistics.median(fast for _, fast in pairs),
        ratio=statistics.median(slow / fast for slow, fast in pairs),
    )
