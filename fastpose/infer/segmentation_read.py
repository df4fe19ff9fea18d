"""Pictures for a network that takes them whole, read ahead on threads."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

import numpy as np

from fastpose.infer.boxes_in import Found
from fastpose.infer.items import Item
from fastpose.infer.pipeline import read_ahead
from fastpose.infer.stages import Picture, Stages


def read_pictures(items: Iterable[Item], workers: int) -> Generator[Picture, None, None]:
    """Each item with its pixels or its error, in order; `workers` threads, 0 for none, read ahead of the one
    who asks, within the bounds of `read_ahead`."""
    if not workers:
        for item in items:
            picture = Picture(item)
            picture.read(WHOLE)
            yield picture
        return
    reading = cast(Generator[Any, None, None], read_ahead(items, replace(WHOLE, workers=workers)))
    with closing(reading):
        for picture, _ in reading:
            yield picture


def _load(item: Item) -> np.ndarray:
    return item.load()


def _nobody(item: Item, image: np.ndarray) -> Found:
    return Found(np.zeros((0, 4)), np.zeros(0))


def _unused(*arguments: Any) -> Any:
    raise AssertionError("a picture without boxes has no crops")


WHOLE = Stages(read=_load, find=_nobody, cut=_unused, forward=_unused, gather=_unused)
"""The stages of a picture in which nobody is looked for."""
