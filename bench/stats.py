"""Ratios of interleaved times, their intervals and what may be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
FASTER, SLOWER, NO_DIFFERENCE = "faster", "slower", "no difference"
UNDECIDED = "undecided, the core was shared"


@dataclass(frozen=True)
class Ratio:
    """Median of per-round ratios and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def ratio(rival: Sequence[float], candidate: Sequence[float], *, seed: int = 0) -> Ratio:
    """How many times as fast as the rival the candidate is: above 1 it is faster.

    Args:
        rival, candidate: positive seconds of the same rounds, in order.

    Raises:
        ValueError: the lengths differ, or there is no round.

    Source: percentile bootstrap, Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if len(rival) != len(candidate) or not len(rival):
        raise ValueError(
            f"rounds: expected two equal numbers of rounds, got {len(rival)} and {len(candidate)}"
        )
    ratios = np.asarray(rival, float) / np.asarray(candidate, float)
    draws = np.random.default_rng(seed).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def verdict(pair: Ratio, noise: Ratio, shared: int = 0) -> str:
    """FASTER or SLOWER, or NO_DIFFERENCE: the interval spans 1, or the ratio is within the noise.

    shared: rounds in which other work had the core: the interval does not tell by how much, so UNDECIDED.
    noise: the candidate against itself, measured likewise; the farther end of its interval is the floor.
    """
    if shared:
        return UNDECIDED
    floor = max(abs(noise.low - 1), abs(noise.high - 1))
    if pair.low <= 1 <= pair.high or abs(pair.value - 1) <= floor:
        return NO_DIFFERENCE
    return FASTER if pair.value > 1 else SLOWER


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, first and ninth decile, and minimum."""
    p10, median, p90 = np.percentile(seconds, [10, 50, 90])
    return {"median_s": float(median), "p10_s": float(p10), "p90_s": float(p90), "min_s": float(min(seconds))}
