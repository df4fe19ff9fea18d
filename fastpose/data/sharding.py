"""Which samples of a step, and which rows of a table, each of several processes takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastpose.data.sampler import EpochSampler
from fastpose.errors import ConfigError


def share_of(count: int, rank: int, world: int) -> slice:
    """The part of `count` things in a row that is process `rank`'s of `world`; sizes differ by at most 1."""
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} of {world} processes: ranks count from 0")
    return slice(count * rank // world, count * (rank + 1) // world)


class ShardedSampler(EpochSampler):
    """What process `rank` of `world` takes of every batch of an EpochSampler: its `share_of` it, in order.

    `batch_size` is that of all processes together, and `len`, `order` and `set_epoch` are those of the whole.
    The samples of a step, and the place of each in it, are a pure function of (seed, epoch, step), whatever
    the number of processes; so a run that goes on with another number sees what it would have seen.
    Raises ConfigError as EpochSampler does, and where a batch would leave a process without a sample.
    """

    def __init__(
        self, length: int, batch_size: int, *, rank: int = 0, world: int = 1, **options: Any
    ) -> None:
        super().__init__(length, batch_size, **options)
        share_of(batch_size, rank, world)
        smallest = batch_size if self.drop_last else length % batch_size or batch_size
        if smallest < world:
            raise ConfigError(
                f"batch_size {batch_size}: a batch of {smallest} samples leaves some of {world} processes "
                "without any; make it larger, or use drop_last"
            )
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield batch[share_of(len(batch), self.rank, self.world)]


class RowsSampler(EpochSampler):
    """The rows `start` to `stop` of a table, in order, `batch_size` at a time."""

    def __init__(self, start: int, stop: int, batch_size: int) -> None:
        super().__init__(stop - start, batch_size, shuffle=False)
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield [(epoch, row + self.start) for epoch, row in batch]
