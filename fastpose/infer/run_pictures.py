"""Pictures in, results out, in order: read, find, crop, forward, gather, with crops of several pictures in
one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from fastpose.infer.items import Item
from fastpose.infer.pipeline import read_ahead
from fastpose.infer.result import Result
from fastpose.infer.stages import Crop, Crops, Joints, Picture, Stages, add_time

T = TypeVar("T")

KEPT_BYTES = 256 << 20
"""Of pixels that wait with their pictures for a batch to fill."""


def run_pictures(items: Iterable[Item], stages: Stages) -> Generator[Result, None, None]:
    """One result a picture, in the order of the items.

    The batches hold the same crops in the same places whatever the number of threads. At most one picture's
    pixels and `batch_size` crops, or parts of pictures of up to four times their bytes, are in memory, and
    with `keep_pixels` as many pictures as fit into KEPT_BYTES, but no more than `batch_size`; what lies in
    batches in flight comes on top, and with `workers` what `fastpose.infer.pipeline.read_ahead` says. Not
    more than `batch_size` pictures, for each batch in flight and the one that fills, are taken from the
    source and from what is read ahead before the first result is handed out, and a live picture's result
    comes before the next is read. An error of the source, a detector or a cutter is raised behind the results
    of all pictures before it.
    """
    waiting: deque[Picture] = deque()
    batches = _Batches(stages)
    errors: list[Exception] = []
    with closing(_started(items, stages)) as started:
        for picture, crops in _until_error(started, errors):
            waiting.append(picture)
            for crop in _until_error(crops, errors):
                batches.add(picture, crop)
            if errors:
                break
            if not stages.keep_pixels:
                picture.image = None
            unsent = batches.unsent(waiting)
            if len(unsent) >= stages.batch_size or _bytes(unsent) > KEPT_BYTES:
                batches.start()
            yield from _results(waiting, stages)
            if picture.item.live or len(waiting) >= stages.batch_size * (1 + stages.in_flight):
                batches.finish()
                yield from _results(waiting, stages)
    batches.finish()
    yield from _results(waiting, stages)
    if errors:
        raise errors[0]


def _until_error(things: Iterable[T], errors: list[Exception]) -> Iterator[T]:
    """All there is before an error, which is put into `errors`."""
    try:
        yield from things
    except Exception as error:
        errors.append(error)


def _results(waiting: deque[Picture], stages: Stages) -> Iterator[Result]:
    """Of the pictures at the front whose people all have their joints."""
    while waiting and waiting[0].done:
        yield stages.gather(waiting.popleft())


def _started(items: Iterable[Item], stages: Stages) -> Generator[tuple[Picture, Iterator[Crop]], None, None]:
    """Pictures with their people found, and their crops."""
    if stages.workers:
        yield from read_ahead(items, stages)
        return
    for item in items:
        picture = Picture(item)
        picture.read(stages)
        picture.find(stages)
        yield picture, picture.cut(stages)


def _bytes(pictures: list[Picture]) -> int:
    return sum(picture.image.nbytes for picture in pictures if picture.image is not None)


@dataclass
class _Started:
    """A batch that is being computed."""

    joints: Callable[[], Joints]
    owners: list[Picture]
    seconds: float


class _Batches:
    """Crops that wait for the batch to fill, and whose they are; and batches that are being computed."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.crops: list[Crop] = []
        self.owners: list[Picture] = []
        self.flying: deque[_Started] = deque()

    def add(self, picture: Picture, crop: Crop) -> None:
        self.crops.append(crop)
        self.owners.append(picture)
        if len(self.crops) == self.stages.batch_size:
            self.start()

    def unsent(self, waiting: deque[Picture]) -> list[Picture]:
        """The pictures from the first one on that has a crop in the batch that fills."""
        if not self.owners:
            return []
        pictures = list(waiting)
        first = next(i for i, picture in enumerate(pictures) if picture is self.owners[0])
        return pictures[first:]

    def start(self) -> None:
        """Sends the crops on their way, and collects batches until no more than `in_flight` are there."""
        if self.crops:
            begun = time.perf_counter()
            joints = self.stages.forward(Crops.of(self.crops))
            self.flying.append(_Started(joints, self.owners, time.perf_counter() - begun))
            self.crops, self.owners = [], []
        while len(self.flying) > self.stages.in_flight:
            self._collect()

    def finish(self) -> None:
        """Sends what there is and collects it all."""
        self.start()
        while self.flying:
            self._collect()

    def _collect(self) -> None:
        batch = self.flying.popleft()
        begun = time.perf_counter()
        joints = batch.joints()
        each = (batch.seconds + time.perf_counter() - begun) / len(batch.owners)
        for row, picture in enumerate(batch.owners):
            picture.joints.append((joints.xy[row], joints.conf[row], joints.valid[row]))
            add_time(picture, "forward", each)
