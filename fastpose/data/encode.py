"""What goes into a crop cache: each person's region of its picture, cut out, reduced if asked, encoded."""

from __future__ import annotations

import math
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from torch.utils.data import Dataset

from fastpose.data.annotations import OnBad
from fastpose.data.augment import Augmentation
from fastpose.data.images import MAX_SIDE
from fastpose.data.persons import PersonTable
from fastpose.data.reach import clip_reach, reach
from fastpose.data.sources import UNKNOWN, Source, checksum, stamp
from fastpose.errors import ConfigError, FastposeError, ImageError

ALIGN = 16
"""Pixels: where blocks of a JPEG begin, with colour at half resolution or not. Encoded again on the same
blocks, a photograph loses much less than on others."""


@dataclass(frozen=True)
class Encoding:
    """How regions are stored. Raises ConfigError for numbers out of range."""

    kind: Literal["jpeg", "png", "raw"] = "jpeg"  # png and raw, which is plain pixels, are lossless
    quality: int = 95  # of jpeg, 1 to 100
    max_side: int = 0  # pixels: a longer region is reduced by a whole factor, 0 for never

    def __post_init__(self) -> None:
        if self.kind not in ("jpeg", "png", "raw"):
            raise ConfigError(f"kind must be 'jpeg', 'png' or 'raw', got {self.kind!r}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be from 1 to 100, got {self.quality}")
        if not 0 <= self.max_side <= MAX_SIDE:
            raise ConfigError(f"max_side must be from 0 (never) to {MAX_SIDE} pixels, got {self.max_side}")

    def encode(self, pixels: np.ndarray) -> bytes:
        """(h, w, 3) uint8 BGR -> bytes. JPEGs keep the colour's full resolution: many photographs have it,
        and would lose more by its halving than by all the rest."""
        if self.kind == "raw":
            return pixels.tobytes()
        if self.kind == "png":
            return cv2.imencode(".png", pixels)[1].tobytes()
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        return cv2.imencode(".jpg", pixels, options)[1].tobytes()

    def recipe(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        values = asdict(self)
        return values if self.kind == "jpeg" else {**values, "quality": None}


class EncodedPerson(NamedTuple):
    """One record of a cache: the fields of crop_cache.ROW without shard and offset, and the bytes."""

    person: int  # row of the table
    data: bytes
    crc32: int = 0
    corner: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)  # width and height in pixels of the picture
    picture: tuple[int, int] = (0, 0)
    factor: int = 1
    source: Source = UNKNOWN
    problem: str = ""  # why the picture could not be read; there are no bytes then


class RegionEncoder(Dataset[Any]):
    """`encoder[i]`: the records of all persons of the i-th picture that has any, in the table's order.

    A picture that cannot be read gives records without bytes, or with `on_bad="stop"` the ImageError itself
    as the value, which a loader hands on better than an exception.
    """

    def __init__(
        self,
        table: PersonTable,
        augmentation: Augmentation | None,
        aspect_ratio: float,
        encoding: Encoding,
        on_bad: OnBad = "skip",
    ) -> None:
        self.table, self.encoding, self.on_bad = table, encoding, on_bad
        self._reach = reach(table, augmentation, aspect_ratio)
        self._order = np.argsort(table.image_index, kind="stable")
        self._images, self._start = np.unique(table.image_index[self._order], return_index=True)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> list[EncodedPerson] | FastposeError:
        name = str(self.table.file_names[self._images[position]])
        end = self._start[position + 1] if position + 1 < len(self) else len(self._order)
        persons = self._order[self._start[position] : end]
        images = self.table.images
        source = stamp(images, name)
        try:
            image = images.read(name)
        except ImageError as error:
            if self.on_bad == "stop":
                return error
            return [EncodedPerson(int(row), b"", source=source, problem=str(error)) for row in persons]
        source = source._replace(crc32=checksum(images, name))
        size = np.array([image.shape[1], image.shape[0]])
        boxes = clip_reach(self._reach[persons], size, ALIGN)
        return [
            self._person(image, int(person), box, source)
            for person, box in zip(persons, boxes.tolist(), strict=True)
        ]

    def _person(self, image: np.ndarray, person: int, box: list[int], source: Source) -> EncodedPerson:
        x, y, end_x, end_y = box
        longest, limit = max(end_x - x, end_y - y), self.encoding.max_side
        factor = math.ceil(longest / limit) if limit and longest > limit else 1
        pixels = reduce_pixels(image[y:end_y, x:end_x], factor)
        data = self.encoding.encode(pixels)
        size = pixels.shape[1] * factor, pixels.shape[0] * factor
        picture = image.shape[1], image.shape[0]
        return EncodedPerson(person, data, zlib.crc32(data), (x, y), size, picture, factor, source)


def reduce_pixels(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means of `factor` x `factor` pixels; where the last ones lack some, black as outside of a picture."""
    if factor == 1:
        return np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    padded = cv2.copyMakeBorder(pixels, 0, -height % factor, 0, -width % factor, cv2.BORDER_CONSTANT)
    size = padded.shape[1] // factor, padded.shape[0] // factor
    return cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
