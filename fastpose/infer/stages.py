"""What happens to a picture on its way from a source to a result, one function a stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

import numpy as np

from fastpose.errors import FastposeError
from fastpose.infer.boxes_in import Found
from fastpose.infer.items import Item
from fastpose.infer.result import Result


class Crop(NamedTuple):
    """A person cut out: pixels (height, width, 3) uint8 in the network's channel order, center and scale
    (2,).

    Or the part of the picture that the crop shows, for the device to cut: pixels BGR of any size, matrix
    (2, 3) float64 from the picture to the crop, and origin (2,) int32, the part's corner (x, y) in it.
    """

    pixels: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    matrix: np.ndarray | None = None
    origin: np.ndarray | None = None


@dataclass
class Crops:
    """Persons cut out: pixels (B, H, W, 3) uint8 in the network's channel order, center and scale (B, 2).

    Or parts of pictures as in `Crop`: a list of pixels, matrix (B, 2, 3) and origin (B, 2).
    """

    pixels: np.ndarray | list[np.ndarray]
    center: np.ndarray
    scale: np.ndarray
    matrix: np.ndarray | None = None
    origin: np.ndarray | None = None

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Crops:
        """A batch of one or more."""
        pixels, center, scale, *place = zip(*crops, strict=True)
        if place[0][0] is None:
            return cls(np.stack(pixels), np.stack(center), np.stack(scale))
        return cls(list(pixels), np.stack(center), np.stack(scale), *map(np.stack, place))


@dataclass
class Joints:
    """Of B persons: xy (B, K, 2) float32 pixels of the picture, conf (B, K) float32, valid (B, K) bool."""

    xy: np.ndarray
    conf: np.ndarray
    valid: np.ndarray


@dataclass
class Stages:
    """What is done to pictures.

    `read` may raise a FastposeError, which becomes the picture's own; `cut` gives a crop for each box, as
    they are asked for; `forward` starts at most `batch_size` crops, and what it returns waits for their
    joints; `gather` makes the result. `keep_pixels`: results carry their pictures. `workers`: threads on
    which `read` and `cut` run, 0 for none. `in_flight`: batches that may be computed while the next fills.
    """

    read: Callable[[Item], np.ndarray]
    find: Callable[[Item, np.ndarray], Found]
    cut: Callable[[np.ndarray, np.ndarray], Iterator[Crop]]
    forward: Callable[[Crops], Callable[[], Joints]]
    gather: Callable[[Picture], Result]
    batch_size: int = 32
    keep_pixels: bool = False
    workers: int = 0
    in_flight: int = 0


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

    def read(self, stages: Stages) -> None:
        """Its pixels, or its error."""
        try:
            with timed(self, "read"):
                self.image = stages.read(self.item)
        except FastposeError as error:
            self.error = error.with_traceback(None)  # its frames hold the bytes of the file
            return
        self.shape = self.image.shape[0], self.image.shape[1]

    def find(self, stages: Stages) -> None:
        """Its people, once it is read."""
        if self.image is not None:
            with timed(self, "detect"):
                self.found = stages.find(self.item, self.image)

    def cut(self, stages: Stages) -> Iterator[Crop]:
        """Its people's crops, each cut when it is asked for."""
        if self.image is None:
            return
        crops = stages.cut(self.image, self.found.boxes)
        while True:
            with timed(self, "crop"):
                crop = next(crops, None)
            if crop is None:
                return
            yield crop


class timed:
    """Adds the milliseconds of its block to the picture's speed."""

    def __init__(self, picture: Picture, stage: str) -> None:
        self.picture, self.stage = picture, stage

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        add_time(self.picture, self.stage, time.perf_counter() - self.start)


def add_time(picture: Picture, stage: str, seconds: float) -> None:
    """Adds to what a stage took of the picture's time, in milliseconds."""
    picture.speed[stage] = picture.speed.get(stage, 0.0) + seconds * 1e3
