"""Batches of samples as tensors, in an order and with numbers that no worker count changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from fastpose.data.dataset import CropDataset, Sample
from fastpose.errors import ConfigError, DataError, FastposeError

WORKER_TIMEOUT_S = 300.0
_LOST_WORKER = ("killed by signal", "exited unexpectedly", "timed out", "shared memory", "No space left")


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """A batch sampler over `length` samples whose items are (epoch, index).

    The order depends on (seed, epoch) alone, so training resumed at `set_epoch(epoch, start_batch)` sees what
    an uninterrupted run sees. `len` counts the batches of a whole epoch. Raises ConfigError for a length or
    batch size below 1, or a batch larger than the data with `drop_last`.
    """

    def __init__(
        self, length: int, batch_size: int, *, shuffle: bool, seed: int = 0, drop_last: bool = False
    ) -> None:
        if length < 1 or batch_size < 1 or seed < 0:
            raise ConfigError(f"length {length} and batch_size {batch_size} must be > 0, seed {seed} >= 0")
        if drop_last and batch_size > length:
            raise ConfigError(f"batch_size {batch_size} with drop_last leaves no batch of {length} samples")
        self.length, self.batch_size = length, batch_size
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
        order = np.arange(self.length)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order)
        epoch = self.epoch
        for batch in range(self.start_batch, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, int(row)) for row in rows]


class _Batches(Dataset[Any]):
    """Hands a typed error over as a value: torch would raise it with the worker's traceback as message."""

    def __init__(self, dataset: CropDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample] | FastposeError:
        try:
            return [self.dataset[key] for key in keys]
        except FastposeError as error:
            return error


class CropLoader(DataLoader[Any]):
    """A DataLoader that raises the dataset's own errors, and says what to do when a worker dies."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:  # type: ignore[override]
        try:
            for batch in self._start():
                if isinstance(batch, FastposeError):
                    try:
                        raise batch
                    finally:
                        del batch  # a cycle through the traceback would delay the workers' end by 5 s
                yield batch
        except RuntimeError as error:
            if isinstance(error, FastposeError) or not any(sign in str(error) for sign in _LOST_WORKER):
                raise
            reason = str(error).splitlines()[-1]
            raise DataError(
                f"a data worker stopped: {reason}. Use fewer workers or a smaller cache if memory ran out, "
                "enlarge /dev/shm (docker: --shm-size), or see the error with workers=0"
            ) from error

    def _start(self) -> Iterator[Any]:
        # A forked worker that inherits OpenCV's pool of threads hangs when it gives the pool up.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)


def make_loader(
    dataset: CropDataset, sampler: EpochSampler, *, workers: int = 0, pin_memory: bool = False
) -> CropLoader:
    """Batches of `dataset` as dicts of tensors with a leading batch dimension: `crop` (B, H, W, 3) uint8,
    `joints` (B, K, 2), ..., `index` (B,) int64, `usable` (B,) bool.

    Workers live on between epochs and each use one thread; torch's global random state is not touched. The
    dataset's typed errors reach the caller as themselves, a worker that dies or takes longer than
    WORKER_TIMEOUT_S for a batch as a DataError. Raises ConfigError for a negative number of workers.
    """
    if workers < 0:
        raise ConfigError(f"workers must be 0 or more, got {workers}")
    return CropLoader(
        _Batches(dataset),
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_collate,
        worker_init_fn=_one_thread,
        persistent_workers=workers > 0,
        timeout=WORKER_TIMEOUT_S if workers else 0,
        generator=torch.Generator(),
    )


def _collate(samples: list[Sample] | FastposeError) -> Any:
    return samples if isinstance(samples, FastposeError) else default_collate(samples)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # DataLoader does the same for torch
