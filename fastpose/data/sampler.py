"""Which samples a batch holds, and in which order the batches of an epoch come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from fastpose.errors import ConfigError


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """A batch sampler over `length` samples whose items are (epoch, index).

    The order depends on (seed, epoch) alone, so training resumed at `set_epoch(epoch, start_batch)` sees what
    an uninterrupted run sees. `len` counts the batches of a whole epoch. With `groups` (length,), such as the
    table's `image_index`, the groups are shuffled and the samples of one stay together, in their own order.
    Raises ConfigError for a length or batch size below 1, a batch larger than the data with `drop_last`, or
    groups of another length.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        groups: np.ndarray | None = None,
    ) -> None:
        if length < 1 or batch_size < 1 or seed < 0:
            raise ConfigError(f"length {length} and batch_size {batch_size} must be > 0, seed {seed} >= 0")
        if drop_last and batch_size > length:
            raise ConfigError(f"batch_size {batch_size} with drop_last leaves no batch of {length} samples")
        if groups is not None and groups.shape != (length,):
            raise ConfigError(f"groups: expected one for each of {length} samples, got shape {groups.shape}")
        self.length, self.batch_size, self.groups = length, batch_size, groups
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.epoch = self.start_batch = 0

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Say which epoch the next iteration is, and how many of its batches are done already."""
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise ConfigError(
                f"epoch {epoch} and start_batch {start_batch} (of {len(self)}) are out of range"
            )
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        whole, rest = divmod(self.length, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, epoch = self.order(), self.epoch
        for batch in range(self.start_batch, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, int(row)) for row in rows]

    def order(self) -> np.ndarray:
        """(length,) int64: the samples of the whole epoch in their order."""
        if self.groups is None:
            order = np.arange(self.length)
            if self.shuffle:
                np.random.default_rng([self.seed, self.epoch]).shuffle(order)
            return order
        names, group = np.unique(self.groups, return_inverse=True)
        place = np.arange(len(names))
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(place)
        return np.argsort(place[group], kind="stable")


def count_decodes(sampler: EpochSampler, image_index: np.ndarray) -> int:
    """Pictures that a loader decodes for the sampler's next epoch, without a cache: each once a batch.

    `image_index` (N,) is the table's.
    """
    return sum(len(np.unique(image_index[[row for _, row in batch]])) for batch in sampler)
