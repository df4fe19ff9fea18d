"""Batches of samples as tensors, with numbers that no worker count changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from fastpose.data.dataset import Sample
from fastpose.data.handover import SHARED, Piped, hand_over, join_samples, shared_room
from fastpose.data.sampler import EpochSampler
from fastpose.data.worker_places import IDLE, WorkerPlaces
from fastpose.errors import ConfigError, DataError, FastposeError

LOOK_S = 2.0
"""Between looks at whether the workers get on."""

SIGNAL_S = 1.0
QUEUE_BYTES = 64 << 10  # of shared memory: a page for each semaphore of a worker's queues
_log = logging.getLogger("fastpose.data")
_LOST_WORKER = ("killed by signal", "exited unexpectedly", "timed out", "shared memory", "No space left")


class TableDataset(Protocol):
    """What is loaded: samples by (epoch, row), and the table they come from, whose `image_index` (N,) says
    which share a picture."""

    table: Any

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> Sample: ...


class _Batches(Dataset[Any]):
    """Hands a typed error over as a value: torch would raise it with the worker's traceback as message."""

    def __init__(self, dataset: TableDataset, places: WorkerPlaces) -> None:
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
    """A DataLoader that raises the dataset's own errors, and says what to do when a worker dies or hangs.

    Batches that find no room in shared memory come through pipes, with a warning for the first.
    """

    places: WorkerPlaces
    warned = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            for batch in self._batches(self._start()):
                if isinstance(batch, FastposeError):
                    try:
                        raise batch
                    finally:
                        del batch  # a cycle through the traceback would delay the workers' end by 5 s
                yield self._unpiped(batch) if isinstance(batch, Piped) else batch
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

    def _unpiped(self, batch: Piped) -> dict[str, torch.Tensor]:
        if not self.warned:
            self.warned = True
            waiting = self.num_workers * (self.prefetch_factor or 1) + 1
            _log.warning(
                "no room in shared memory (%s): batches come through pipes, which costs this process time. "
                "Enlarge %s to %d MB or more (docker: --shm-size), or use fewer workers",
                batch.reason,
                SHARED,
                (waiting * batch.nbytes >> 20) + 1,
            )
        tensors = join_samples(batch.samples)
        return {name: x.pin_memory() for name, x in tensors.items()} if self.pin_memory else tensors

    def _start(self) -> Iterator[Any]:
        if shared_room() < QUEUE_BYTES * self.num_workers:
            raise DataError(
                f"{SHARED} is full, not even the queues of {self.num_workers} workers find room: empty or "
                "enlarge it (docker: --shm-size), or use data.workers=0"
            )
        # A forked worker that inherits OpenCV's pool of threads hangs when it gives the pool up.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(threads)


def make_loader(
    dataset: TableDataset, sampler: EpochSampler, *, workers: int = 0, pin_memory: bool = False
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
        collate_fn=hand_over,
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


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)  # DataLoader does the same for torch
