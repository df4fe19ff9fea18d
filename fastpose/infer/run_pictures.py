"""Pictures in, results out, in order: read, find, crop, forward, gather, with crops of several pictures in
one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fastpose.errors import FastposeError
from fastpose.infer.boxes_in import Found
from fastpose.infer.items import Item
from fastpose.infer.result import Result

KEPT_BYTES = 256 << 20
"""Of pixels that wait with their pictures for a batch to fill."""


@dataclass
class Crops:
    """Persons cut out: pixels (B, H, W, 3) uint8 in the network's channel order, center and scale (B, 2)."""

    pixels: np.ndarray
    center: np.ndarray
    scale: np.ndarray


@dataclass
class Joints:
    """Of B persons: xy (B, K, 2) float32 pixels of the picture, conf (B, K) float32, valid (B, K) bool."""

    xy: np.ndarray
    conf: np.ndarray
    valid: np.ndarray


@dataclass
class Picture:
    """A picture on its way: `joints` gets xy (K, 2), conf (K,) and valid (K,) for one box after the other."""

    item: Item
    image: np.ndarray | None = None
    shape: tuple[int, int] = (0, 0)
    found: Found = field(default_factory=lambda: Found(np.zeros((0, 4)), np.zeros(0)))
    joints: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    error: FastposeError | None = None
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return len(self.joints) == len(self.found.boxes)


@dataclass
class Stages:
    """What is done to pictures. `read` may raise a FastposeError, which becomes the picture's own; `cut`
    gives one crop (height, width, 3), its center and scale for each box, as they are asked for; `forward`
    takes at most `batch_size` crops; `gather` makes the result. `keep_pixels`: results carry their pictures.
    """

    read: Callable[[Item], np.ndarray]
    find: Callable[[Item, np.ndarray], Found]
    cut: Callable[[np.ndarray, np.ndarray], Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]]
    forward: Callable[[Crops], Joints]
    gather: Callable[[Picture], Result]
    batch_size: int = 32
    keep_pixels: bool = False


def run_pictures(items: Iterable[Item], stages: Stages) -> Iterator[Result]:
    """One result a picture, in the order of the items, on the thread that asks.

    At most one picture's pixels and `batch_size` crops are in memory, and with `keep_pixels` as many pictures
    as fit into KEPT_BYTES, but no more than `batch_size`. Not more than `batch_size` pictures are read
    before the first result is handed out, and a live picture's result comes before the next is read.
    """
    waiting: deque[Picture] = deque()
    batch = _Batch(stages)
    for item in items:
        picture = _start(item, stages)
        waiting.append(picture)
        _crop(picture, batch, stages)
        kept = sum(held.image.nbytes for held in waiting if held.image is not None)
        if item.live or len(waiting) >= stages.batch_size or kept > KEPT_BYTES:
            batch.run()
        while waiting and waiting[0].done:
            yield stages.gather(waiting.popleft())
    batch.run()
    for picture in waiting:
        yield stages.gather(picture)


def _start(item: Item, stages: Stages) -> Picture:
    """Reads a picture and finds its people."""
    picture = Picture(item)
    try:
        with _timed(picture, "read"):
            picture.image = stages.read(item)
    except FastposeError as error:
        picture.error = error.with_traceback(None)  # its frames hold the bytes of the file
        return picture
    height, width = picture.image.shape[:2]
    picture.shape = height, width
    with _timed(picture, "detect"):
        picture.found = stages.find(item, picture.image)
    return picture


def _crop(picture: Picture, batch: _Batch, stages: Stages) -> None:
    if picture.image is None:
        return
    crops = stages.cut(picture.image, picture.found.boxes)
    while True:
        with _timed(picture, "crop"):
            crop = next(crops, None)
        if crop is None:
            break
        batch.add(picture, crop)
    if not stages.keep_pixels:
        picture.image = None


class _Batch:
    """Crops that wait for the batch to fill, and whose they are."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.crops: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.owners: list[Picture] = []

    def add(self, picture: Picture, crop: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        self.crops.append(crop)
        self.owners.append(picture)
        if len(self.crops) == self.stages.batch_size:
            self.run()

    def run(self) -> None:
        """Puts the crops through the network and the joints into their pictures."""
        if not self.crops:
            return
        start = time.perf_counter()
        pixels, center, scale = (np.stack(column) for column in zip(*self.crops, strict=True))
        joints = self.stages.forward(Crops(pixels, center, scale))
        each = (time.perf_counter() - start) * 1e3 / len(self.owners)
        for row, picture in enumerate(self.owners):
            picture.joints.append((joints.xy[row], joints.conf[row], joints.valid[row]))
            picture.speed["forward"] = picture.speed.get("forward", 0.0) + each
        self.crops, self.owners = [], []


class _timed:
    """Adds the milliseconds of its block to the picture's speed."""

    def __init__(self, picture: Picture, stage: str) -> None:
        self.speed, self.stage = picture.speed, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        spent = (time.perf_counter() - self.start) * 1e3
        self.speed[self.stage] = self.speed.get(self.stage, 0.0) + spent
