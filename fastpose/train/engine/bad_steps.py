"""What a run says about steps that were skipped, and when it gives up."""

from __future__ import annotations

import logging
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

    def __str__(self) -> str:
        where = f"epoch {self.epoch + 1}, batch {self.batch + 1}"
        if self.samples is None:
            return where
        numbers = self.samples.tolist()
        more = ", ..." if len(numbers) > MAX_SAMPLES else ""
        return f"{where} (samples {', '.join(str(n) for n in numbers[:MAX_SAMPLES])}{more})"


class BadSteps:
    """Counts skipped steps, warns of each of the first ones, and ends the run after `limit` in a row."""

    def __init__(self, limit: int) -> None:
        self.limit, self.total = limit, 0
        self.in_row: list[Place] = []

    def see(self, place: Place, skipped: bool) -> None:
        """Every step in order.

        Raises:
            TrainingError: `limit` steps in a row were skipped; names the first and the last of them.
        """
        if not skipped:
            self.in_row.clear()
            return
        self.total += 1
        self.in_row.append(place)
        if self.total <= MAX_WARNINGS:
            last = " (further ones are only counted)" if self.total == MAX_WARNINGS else ""
            logger.warning("the gradient was not finite: step skipped in %s%s", place, last)
        if self.limit and len(self.in_row) >= self.limit:
            raise TrainingError(
                f"the gradient was not finite in {len(self.in_row)} steps in a row, from {self.in_row[0]} to "
                f"{place}; these steps changed nothing, and earlier checkpoints are intact. Look at these "
                "samples, lower train.lr, or set train.amp=none"
            )
