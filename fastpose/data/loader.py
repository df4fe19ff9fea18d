"""Batches of samples as tensors, in an order and with numbers that no worker count changes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from fastpose.data.dataset import CropDataset, Sample
from fastpose.data.warp_batch import collate_parts
from fastpose.data.worker_places import IDLE, WorkerPlaces
from fastpose.errors import ConfigError, DataError, FastposeError

LOOK_S = 2.0
"""Between looks at whether the workers get on."""

SIGNAL_S = 1.0
_LOST_WORKER = ("killed by signal", "exited unexpectedly", "timed out", "shared memory", "No space left")


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


class _Batches(Dataset[Any]):
    """Hands a typed error over as a value: torch would raise it with the worker's traceback as message."""

    def __init__(self, dataset: CropDataset, places: WorkerPlaces) -> None:
        self.dataset, self.places = dataset, places

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample] | FastposeError:
        # The persons of a picture one after the other, so that it is decoded once for all of them.
        image_index = self.dataset.table.image_index
        order = sorted(range(len(keys)), key=lambda place: image_index[keys[place][1]])
        samples: dict[int, Sample] = {}
        try:
            for place in order:
                self.places.at(keys[place][1])
                samples[place] = self.dataset[keys[place]]
        except FastposeError as error:
            return error
        finally:
            self.places.at(IDLE)
        return [samples[place] for place in range(len(keys))]


class _Placed(Dataset[Any]):
    """`dataset`, asked by (number, key), that tells which number is under way."""

    def __init__(self, dataset: Dataset[Any], places: WorkerPlaces) -> None:
        self.dataset, self.places = dataset, places

    def __getitem__(self, item: tuple[int, Any]) -> Any:
        self.places.at(item[0])
        try:
            return self.dataset[item[1]]
        finally:
            self.places.at(IDLE)


class CropLoader(DataLoader[Any]):
    """A DataLoader that raises the dataset's own errors, and says what to do when a worker dies or hangs."""

    places: WorkerPlaces

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            for batch in self._batches(self._start()):
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
                f"a data worker stopped: {reason}{self.places.of(reason)}. Use fewer workers or a smaller "
                "cache if memory ran out, enlarge /dev/shm (docker: --shm-size), or see the error with "
                "workers=0"
            ) from error

    def _batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "timed out" not in str(error):
                    raise
                stuck = self.places.stuck()
                if stuck:
                    raise RuntimeError(f"timed out: {stuck}") from error
            except (EOFError, ConnectionError) as error:
                # A worker that dies while a batch of its is fetched: the signal of its end comes after.
                time.sleep(SIGNAL_S)
                raise RuntimeError("DataLoader worker exited unexpectedly while it sent a batch") from error

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
    SAMPLE_TIMEOUT_S for a sample as a DataError that names the sample. Raises ConfigError for a negative
    number of workers.
    """
    places = WorkerPlaces(max(1, workers))
    loader = CropLoader(
        _Batches(dataset, places),
        batch_sampler=sampler,
        pin_memory=pin_memory,
        collate_fn=_collate,
        persistent_workers=workers > 0,
        **_worker_options(workers),
    )
    loader.places = places
    return loader


def in_workers(dataset: Dataset[Any], keys: Sequence[Any], workers: int) -> Iterator[Any]:
    """`dataset[key]` of every key in their order, worked out by `workers` processes of one thread each.

    A FastposeError that the dataset gives as a value is raised here; a worker that dies or takes longer than
    SAMPLE_TIMEOUT_S is a DataError. Raises ConfigError for a negative number of workers.
    """
    places = WorkerPlaces(max(1, workers))
    options = _worker_options(workers)
    placed, order = _Placed(dataset, places), list(enumerate(keys))
    loader = CropLoader(placed, batch_size=None, sampler=order, collate_fn=_as_it_is, **options)
    loader.places = places
    yield from loader


def _worker_options(workers: int) -> dict[str, Any]:
    if workers < 0:
        raise ConfigError(f"workers must be 0 or more, got {workers}")
    return {
        "num_workers": workers,
        "worker_init_fn": _one_thread,
        "timeout": LOOK_S if workers else 0,
        "generator": torch.Generator(),
    }


def _as_it_is(value: Any) -> Any:
    return value


def _collate(samples: list[Sample] | FastposeError) -> Any:
    if isinstance(samples, FastposeError):
        return samples
    return collate_parts(samples) if "pixels" in samples[0] else default_collate(samples)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # DataLoader does the same for torch
