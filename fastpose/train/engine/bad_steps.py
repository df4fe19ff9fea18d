"""What a run says about steps that were skipped, and when it gives up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fastpose.errors import TrainingError

logger = logging.getLogger(__name__)

MAX_WARNINGS = 20
MAX_SAMPLES = 16
"""Sample numbers that a message lists."""


@dataclass
class Place:
    """Which batch a step was: counted from 0, with the numbers of its samples where they are known."""

    epoch: int = 0
    batch: int = 0
    rate: float = 0.0
    samples: Tensor | None = None

    @property
    def numbers(self) -> list[int]:
        """Of the samples; empty where they are not known."""
        return [] if self.samples is None else self.samples.tolist()

    def __str__(self) -> str:
        return self.with_samples([self.numbers])

    def with_samples(self, of_ranks: list[list[int]], all_in: str = "") -> str:
        """In words, with the first numbers of each process; `all_in` is where all of them are."""
        where = f"epoch {self.epoch + 1}, batch {self.batch + 1}"
        if not any(of_ranks):
            return where
        share = max(1, MAX_SAMPLES // len(of_ranks))
        shown = [_first(numbers, share) for numbers in of_ranks[:MAX_SAMPLES]]
        if len(of_ranks) > 1:
            shown = [f"of rank {rank}: {numbers}" for rank, numbers in enumerate(shown)]
        more = [f"all in {all_in}"] if all_in else []
        return f"{where} (samples {'; '.join(shown + more)})"


class BadSteps:
    """Counts skipped steps, warns of each of the first ones, and ends the run after `limit` in a row.

    `describe` puts a skipped step's place in words; it is called for every one of them, in order. Where
    `aloud` is False warnings are left to another process.
    """

    def __init__(self, limit: int, describe: Callable[[Place], str] = str) -> None:
        self.limit, self.describe, self.aloud = limit, describe, True
        self.total = 0
        self._in_row, self._first = 0, ""

    def see(self, place: Place, skipped: bool) -> None:
        """Every step in order.

        Raises:
            TrainingError: `limit` steps in a row were skipped; names the first and the last of them.
        """
        if not skipped:
            self._in_row = 0
            return
        text = self.describe(place)
        self.total += 1
        self._in_row += 1
        if self._in_row == 1:
            self._first = text
        if self.aloud and self.total <= MAX_WARNINGS:
            last = " (further ones are only counted)" if self.total == MAX_WARNINGS else ""
            logger.warning("the gradient was not finite: step skipped in %s%s", text, last)
        if self.limit and self._in_row >= self.limit:
            raise TrainingError(
                f"the gradient was not finite in {self._in_row} steps in a row, from {self._first} to "
                f"{text}; these steps changed nothing, and earlier checkpoints are intact. Look at these "
                "samples, lower train.lr, or set train.amp=none"
            )


def _first(numbers: list[int], count: int) -> str:
    return ", ".join([*map(str, numbers[:count]), *(["..."] if len(numbers) > count else [])])
