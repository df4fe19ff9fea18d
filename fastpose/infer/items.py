"""From whatever a user calls a source to a sequence of pictures that are not read yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastpose.data.images import read_image
from fastpose.errors import DataError, FastposeError
from fastpose.infer.images_in import EXPECTED, is_pil, to_bgr
from fastpose.infer.sources import find_images
from fastpose.infer.video_in import is_camera, is_video, video_frames


@dataclass
class Item:
    """One picture of a source. `load` gives its pixels (H, W, 3) uint8 BGR or raises a FastposeError.

    `again` says that `load` can be called later too without keeping anything in memory for it; `live` that
    the next picture may be long in coming, so that this one must not wait for it; `ahead` that `load` takes
    time and may be called by any thread, before the items in front of this one are done with. `boxes` are
    those that the caller brings for it.
    """

    index: int
    name: str
    load: Callable[[], np.ndarray]
    path: Path | None = None
    frame: int | None = None
    time: float | None = None
    again: bool = True
    live: bool = False
    ahead: bool = False
    boxes: Any = None


@dataclass
class Source:
    """`items` of a source in order; `single` where it names one picture outright, `endless` for a camera,
    `count()` how many there are where that is known before they are asked for."""

    items: Iterator[Item]
    single: bool = False
    endless: bool = False
    count: Callable[[], int | None] = lambda: None


def open_source(source: Any, *, upright: bool = True) -> Source:
    """The pictures of a path, folder, glob, video file, camera index (as a text of digits too), array, PIL
    image, tensor, an array or tensor with one more dimension, or an iterable of any of these.

    Nothing is read yet but the list of a folder. `upright` turns files, PIL images and videos as their
    metadata says. Raises ImageError for a path that is not there, DataError for a source of another kind; in
    an iterable such members become items that cannot be read.
    """
    if is_camera(source):
        source = int(source)
    if isinstance(source, int) and not isinstance(source, bool):
        return Source(_frames(source, 0, upright), endless=True)
    if isinstance(source, (str, Path)) and is_video(source) and not os.path.isdir(source):
        return Source(_frames(Path(source), 0, upright))
    if isinstance(source, (str, Path)):
        files = _files(source, upright)
        return Source(_numbered(files), single=os.path.isfile(source), count=partial(len, files))
    if isinstance(source, (np.ndarray, torch.Tensor)) and source.ndim == 4:
        return Source(_members(source, upright), count=partial(len, source))
    if source is None or is_pil(source) or isinstance(source, (np.ndarray, torch.Tensor)):
        return Source(iter([_in_memory(source, 0, "image", upright)]), single=True)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, dict, set)):
        return Source(_members(source, upright), count=partial(_count, source))
    raise DataError(
        f"source: expected {EXPECTED}, a video, the number of a camera, "
        f"or a list or generator of these; got {type(source).__name__}"
    )


def _count(members: Iterable[Any]) -> int | None:
    """How many pictures these are; None for a generator, and where one may be a folder, a glob or a video."""
    if not isinstance(members, (list, tuple)):
        return None
    paths = [value for value in members if isinstance(value, (str, Path))]
    known = all(os.path.isfile(path) and not is_video(path) for path in paths)
    return len(members) if known else None


def _files(source: str | Path, upright: bool) -> list[Item]:
    return [
        Item(0, str(path), partial(read_image, path, upright=upright), path, ahead=True)
        for path in find_images(source)
    ]


def _in_memory(value: Any, index: int, name: str, upright: bool) -> Item:
    return Item(index, name, partial(to_bgr, value, name, upright=upright))


def _frames(source: Path | int, index: int, upright: bool) -> Iterator[Item]:
    camera = isinstance(source, int)
    for pixels, number, time in video_frames(source, upright=upright):
        yield Item(
            index + number,
            f"{'camera ' if camera else ''}{source} frame {number}",
            partial(to_bgr, pixels, f"{source} frame {number}"),
            None if isinstance(source, int) else source,
            number,
            time,
            again=False,
            live=camera,
        )


def _members(source: Iterable[Any], upright: bool) -> Iterator[Item]:
    index = 0
    for value in source:
        for item in _member(value, index, upright):
            item.index = index
            index += 1
            yield item


def _member(value: Any, index: int, upright: bool) -> Iterator[Item]:
    """The pictures of one member of an iterable; what cannot be had becomes an item that says so."""
    name = str(value) if isinstance(value, (str, Path)) else f"picture {index}"
    try:
        if isinstance(value, (str, Path)):
            yield from _frames(Path(value), 0, upright) if is_video(value) else _files(value, upright)
        else:
            yield _in_memory(value, index, name, upright)
    except FastposeError as error:
        yield Item(
            index, name, partial(_fail, error), Path(value) if isinstance(value, (str, Path)) else None
        )


def _numbered(items: Iterable[Item]) -> Iterator[Item]:
    for index, item in enumerate(items):
        item.index = index
        yield item


def _fail(error: FastposeError) -> np.ndarray:
    raise error
