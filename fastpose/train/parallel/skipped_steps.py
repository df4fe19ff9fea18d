"""Which samples a skipped step had in all processes: in its message, and in full in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from fastpose.errors import OutputError
from fastpose.train.engine.bad_steps import Place

FILE = "skipped_steps.jsonl"


class Summing(Protocol):
    """What is needed of a `World`."""

    rank: int
    size: int

    def sum(self, values: list[float]) -> list[float]: ...


class SkippedSteps:
    """Puts a skipped step in words, with the samples of every process.

    The gradient is averaged before it is looked at, so any process's samples may be to blame. Every process
    calls this for the same steps in the same order; rank 0 adds a line to FILE in `folder`: epoch and batch,
    counted from 1 as in the messages, the learning rate, and the samples of each process as rows of the
    training table.

    Args:
        attempt: calls what writes, and decides what its OutputError does.
    """

    def __init__(self, world: Summing, folder: Path, attempt: Callable[[Callable[[], object]], None]) -> None:
        self.world, self.path, self.attempt = world, folder / FILE, attempt

    def __call__(self, place: Place) -> str:
        samples = lists_of_all(self.world, place.numbers)
        if self.world.rank == 0:
            self.attempt(lambda: self._write(place, samples))
        return place.with_samples(samples, FILE)

    def _write(self, place: Place, samples: list[list[int]]) -> None:
        row = {"epoch": place.epoch + 1, "batch": place.batch + 1, "lr": place.rate, "samples": samples}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def lists_of_all(world: Summing, numbers: list[int]) -> list[list[int]]:
    """The `numbers` of each process, by rank, in every process; magnitudes below 2^53."""
    lengths = [0.0] * world.size
    lengths[world.rank] = float(len(numbers))
    ends = list(accumulate(int(length) for length in world.sum(lengths)))
    row = [0.0] * ends[-1]
    row[ends[world.rank] - len(numbers) : ends[world.rank]] = map(float, numbers)
    flat = [int(number) for number in world.sum(row)] if row else []
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
