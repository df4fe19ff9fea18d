"""Reading and cutting pictures ahead on threads, so that the network does not wait for them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from fastpose.errors import ConfigError
from fastpose.infer.items import Item
from fastpose.infer.stages import Crop, Picture, Stages, add_time

AHEAD = 2
"""Pictures waiting for each thread, so that none runs dry while one picture takes long."""
AHEAD_BYTES = 256 << 20
"""Of pixels that are read and not yet cut; none more is begun above this."""
MOST = 256
"""Threads that can be asked for."""
BOXES = 16
"""Of a picture, cut by one thread at a time; a picture of a crowd does not fill the memory with crops."""


def reading_threads(setting: int | Literal["auto"], device: torch.device) -> int:
    """Threads that read and cut pictures: as asked, or enough to feed the device; 0 on a single core.

    On a CPU the network computes on all cores, and a thread or two fill what it leaves. ConfigError for
    another setting.
    """
    if setting == "auto":
        cores = len(os.sched_getaffinity(0))
        return min(cores, 16) if device.type == "cuda" else min(cores // 2, 4)
    if not isinstance(setting, int) or isinstance(setting, bool) or not 0 <= setting <= MOST:
        raise ConfigError(f"workers: expected 'auto' or a whole number from 0 to {MOST}, got {setting!r}")
    return setting


@dataclass
class _Slot:
    """An item on its way. Without `reading` it is read and cut when its turn comes, by the one who asks;
    `error` is raised then."""

    picture: Picture
    reading: Future[None] | None = None
    crops: Iterator[Crop] = field(default_factory=lambda: iter(()))
    error: Exception | None = None


def read_ahead(items: Iterable[Item], stages: Stages) -> Iterator[tuple[Picture, Iterator[Crop]]]:
    """Each item's picture with its people found, and its crops, in the order of the items.

    For items with `ahead`, `stages.read` and `stages.cut` run on `stages.workers` threads. All else is done
    on the thread of the caller, also asking the source and finding people: a generator of the user's and a
    detector need to know nothing about threads. Other items lie in memory already, which their owner may use
    again for the next: they are read when their turn comes, before the source is asked again.

    In memory are at most AHEAD pictures for each thread, of those not more than are being read at once
    beyond AHEAD_BYTES, and BOXES crops for each thread and picture. An error of the source or of a stage is
    raised at its place in the order. Closing the iterator ends the threads; it waits for pictures that are
    being read at that moment.
    """
    pool = ThreadPoolExecutor(stages.workers, thread_name_prefix="fastpose-pictures")
    try:
        yield from _Window(items, stages, pool)
    finally:
        pool.shutdown(cancel_futures=True)


class _Window:
    """The items between the source and the network: first those being read, then those being cut."""

    def __init__(self, items: Iterable[Item], stages: Stages, pool: ThreadPoolExecutor) -> None:
        self.items, self.stages, self.pool = iter(items), stages, pool
        self.reading: deque[_Slot] = deque()
        self.cutting: deque[_Slot] = deque()
        self.ended: Exception | None = None  # StopIteration, or what the source raised

    def __iter__(self) -> Iterator[tuple[Picture, Iterator[Crop]]]:
        while True:
            self._fill()
            self._find_people()
            if self.cutting:
                slot = self.cutting.popleft()
                if slot.error is not None:
                    raise slot.error
                yield slot.picture, slot.crops
            elif isinstance(self.ended, StopIteration):
                return
            elif self.ended is not None:
                raise self.ended

    def _fill(self) -> None:
        """Asks the source for as many items as may wait."""
        while self.ended is None and self._has_room():
            try:
                item = next(self.items)
            except Exception as error:
                self.ended = error
                return
            slot = _Slot(Picture(item))
            if item.ahead and not item.live:
                slot.reading = self.pool.submit(slot.picture.read, self.stages)
            self.reading.append(slot)

    def _has_room(self) -> bool:
        waiting = [*self.reading, *self.cutting]
        if not waiting:
            return True
        pixels = sum(slot.picture.image.nbytes for slot in waiting if slot.picture.image is not None)
        in_memory = any(slot.reading is None for slot in waiting)
        return len(waiting) < AHEAD * self.stages.workers and pixels < AHEAD_BYTES and not in_memory

    def _find_people(self) -> None:
        """Takes pictures that are read on to be cut: the next one in any case, others if they are ready."""
        while self.reading and (not self.cutting or _is_read(self.reading[0])):
            slot = self.reading.popleft()
            self.cutting.append(slot)
            try:
                if slot.reading is None:
                    slot.picture.read(self.stages)
                else:
                    slot.reading.result()  # raises what the thread raised
                slot.picture.find(self.stages)
            except Exception as error:  # pictures in front of it come first
                slot.error = error
            else:
                slot.crops = self._crops(slot)

    def _crops(self, slot: _Slot) -> Iterator[Crop]:
        if slot.picture.image is None:
            return iter(())
        if slot.reading is None:
            return slot.picture.cut(self.stages)
        return _CutAhead(slot.picture, self.stages, self.pool)


def _is_read(slot: _Slot) -> bool:
    return slot.reading is not None and slot.reading.done()


class _CutAhead(Iterator[Crop]):
    """The crops of a picture, cut by threads: the first boxes at once, others as they come near."""

    def __init__(self, picture: Picture, stages: Stages, pool: ThreadPoolExecutor) -> None:
        self.picture, self.stages, self.pool = picture, stages, pool
        self.rest = iter(range(0, len(picture.found.boxes), BOXES))
        self.jobs: deque[Future[tuple[list[Crop], float]]] = deque()
        self.ready: deque[Crop] = deque()
        add_time(picture, "crop", 0.0)
        self._submit()

    def __next__(self) -> Crop:
        if not self.ready:
            if not self.jobs:
                raise StopIteration
            job = self.jobs.popleft()
            while len(self.jobs) < self.stages.workers and self._submit():
                pass
            crops, seconds = job.result()
            add_time(self.picture, "crop", seconds)
            self.ready.extend(crops)
        return self.ready.popleft()

    def _submit(self) -> bool:
        """Whether there was another part to cut."""
        start, image = next(self.rest, None), self.picture.image
        if start is None or image is None:
            return False
        self.jobs.append(self.pool.submit(self._cut, image, self.picture.found.boxes[start : start + BOXES]))
        return True

    def _cut(self, image: np.ndarray, boxes: np.ndarray) -> tuple[list[Crop], float]:
        begun = time.perf_counter()
        crops = self.stages.cut(image, boxes)
        rows = [crop._replace(pixels=np.ascontiguousarray(crop.pixels)) for crop in crops]
        return rows, time.perf_counter() - begun
