"""Pictures whose pixels say where they are, for tests of what is done to pictures with labels."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fastpose.classes import VOC_21
from fastpose.data.segmentation import SegmentationTable
from fastpose.errors import ImageError


@dataclass(frozen=True)
class Coordinates:
    """Pictures whose pixels say where they are: blue x, green y, red a constant; labels x // 8 + y // 8."""

    sizes: tuple[tuple[int, int], ...] = ((48, 40), (30, 60), (64, 64))
    labels: bool = False
    broken: int = -1

    def read(self, name):
        place = int(name)
        if place == self.broken:
            raise ImageError(f"{name}: broken on purpose")
        width, height = self.sizes[place]
        y, x = np.mgrid[:height, :width]
        if self.labels:
            return (x // 8 + y // 8).astype(np.uint8)
        return np.stack([x, y, np.full_like(x, 200)], 2).astype(np.uint8)

    def problem(self, name):
        return None


def table_of(sizes=Coordinates.sizes, broken=-1):
    names = np.array([str(place) for place in range(len(sizes))])
    pictures = Coordinates(sizes, broken=broken)
    return SegmentationTable(VOC_21, pictures, Coordinates(sizes, labels=True), names, names, Counter())


class Checks:
    """Labels 0 and 20 in squares of three pixels; a mean of two would be another label."""

    def read(self, name):
        y, x = np.mgrid[:64, :64]
        return (20 * ((x // 3 + y // 3) % 2)).astype(np.uint8)
