"""The one form in which every reader hands over labelled pictures: a table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from fastpose.classes import ClassSet
from fastpose.data.annotations import LeftOut
from fastpose.data.persons import ImageSource
from fastpose.errors import DataError, ImageError


class LabelSource(Protocol):
    """Where labels come from: a folder, polygons, or a renderer. Must survive pickling into a worker."""

    def read(self, name: str) -> np.ndarray:
        """(H, W) uint8, a class of the set or IGNORE; DataError when it cannot be had."""
        ...


class Labelled(NamedTuple):
    """A picture and what its pixels are; neither must be written to."""

    pixels: np.ndarray  # (H, W, 3) uint8 BGR
    labels: np.ndarray  # (H, W) uint8, IGNORE where nothing is said

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.labels.nbytes


@dataclass
class SegmentationTable:
    """N pictures with a label for each pixel, as arrays (workers would copy Python lists page by page)."""

    classes: ClassSet
    images: ImageSource
    labels: LabelSource
    file_names: np.ndarray  # (N,) str, of the pictures
    label_names: np.ndarray  # (N,) str, of their labels
    skipped: Counter[str] = field(default_factory=Counter)  # reason -> what the reader left out

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def image_index(self) -> np.ndarray:
        """(N,) int64, row of each sample's picture: its own."""
        return np.arange(len(self))

    def read(self, index: int) -> Labelled:
        """Picture `index` with its labels; ImageError when either cannot be had or their sizes differ."""
        name = str(self.file_names[index])
        pixels, labels = self.images.read(name), self.labels.read(str(self.label_names[index]))
        if pixels.shape[:2] != labels.shape:
            raise ImageError(
                f"{name!r} has {pixels.shape[1]}x{pixels.shape[0]} pixels, its labels "
                f"{labels.shape[1]}x{labels.shape[0]}; replace one of them"
            )
        return Labelled(pixels, labels)

    def pictures(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, picture and labels of every row, as `fastpose.data.voc.write_voc` takes them."""
        for index, name in enumerate(self.file_names):
            yield str(name), *self.read(index)


class LeftOutPictures(LeftOut):
    """Counts what a reader of pictures leaves out."""

    def refuse_empty(self, persons: int) -> None:
        """DataError with all counts when no picture is left."""
        if persons == 0:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.counts.most_common())
            raise DataError(f"{self.file}: no usable picture; left out: {reasons or 'none, it lists none'}")
