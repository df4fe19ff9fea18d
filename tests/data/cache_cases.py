"""Small data sets for the crop cache, and what its tests ask of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastpose.data import Augmentation
from fastpose.data.crop_cache import CropCache
from fastpose.data.encode import Encoding
from fastpose.data.figures import read_figures
from fastpose.data.persons import PersonTable
from fastpose.data.prepare import prepare_crops

SIZE = (48, 64)
ASPECT = SIZE[0] / SIZE[1]
# Crops reach about a third of these pictures, so that most regions begin inside them.
AUGMENTATION = Augmentation(scale_factor=0.3, rotation_factor=30, half_body_joints=4)


def figures(count: int = 12, seed: int = 0) -> PersonTable:
    return read_figures(count, seed=seed, aspect_ratio=ASPECT, image_size=(160, 128))


@dataclass(frozen=True)
class Drawn:
    """Pictures that are there at once, for tests that count in milliseconds."""

    pictures: dict[str, np.ndarray]

    def __repr__(self) -> str:
        return "Drawn()"

    def read(self, name: str) -> np.ndarray:
        return self.pictures[name]

    def problem(self, name: str) -> str | None:
        return None


def drawn(table: PersonTable) -> PersonTable:
    return replace(
        table, images=Drawn({str(name): table.images.read(str(name)) for name in table.file_names})
    )


def prepare(table: PersonTable, folder: Path, kind: str = "raw", **options) -> CropCache:
    options = {"augmentation": AUGMENTATION, "aspect_ratio": ASPECT, "shard_bytes": 60_000, **options}
    max_side = options.pop("max_side", 0)
    return prepare_crops(table, folder, encoding=Encoding(kind, max_side=max_side), **options)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which is empty."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
