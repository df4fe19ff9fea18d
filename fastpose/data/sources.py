"""Whether pictures are still those that a crop cache was made from."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastpose.data.images import FolderImages, MissingImageError, ZipImages, unsafe_name
from fastpose.errors import ImageError

COMPARED = 64
"""Pictures whose bytes are read, at most, where only the times differ: those of a copy all do."""

_log = logging.getLogger("fastpose.data")


class Source(NamedTuple):
    """What is kept of a picture's file; UNKNOWN for one that is drawn, and in caches of format 1."""

    size: int  # bytes; 0 where there was no file
    mark: int  # time of its last change in ns, or the CRC-32 that a zip keeps
    crc32: int


UNKNOWN = Source(-1, -1, 0)


def stamp(images: Any, name: str) -> Source:
    """Size and mark of a picture, without looking inside (crc32 is 0); UNKNOWN where it is no file."""
    try:
        if isinstance(images, ZipImages):
            member = images.member(name)
            return Source(member.file_size, member.CRC, 0)
        if not isinstance(images, FolderImages) or unsafe_name(name):
            return UNKNOWN
        state = os.stat(os.path.join(images.root, name))
        return Source(state.st_size, state.st_mtime_ns, 0)
    except (MissingImageError, FileNotFoundError):
        return Source(0, 0, 0)
    except (ImageError, OSError):
        return UNKNOWN


def checksum(images: Any, name: str) -> int:
    """CRC-32 of a picture's file; 0 where there is none to be had."""
    if isinstance(images, ZipImages):
        return images.member(name).CRC
    if not isinstance(images, FolderImages):
        return 0
    try:
        return zlib.crc32(images.data(name))
    except ImageError:
        return 0


def changed_sources(images: Any, names: Sequence[str], sources: np.ndarray) -> list[str]:
    """Those of `names` whose file is no longer what `sources` (N, 3) int64 say: size, mark, crc32.

    A file of the same size with another mark is read, or COMPARED of them where there are more: if these are
    the same to the byte, all are taken for copies. What is unknown, or not there any more, is left alone.
    """
    changed, touched = [], []
    for name, (size, mark, crc32) in zip(names, sources.tolist(), strict=True):
        if size == UNKNOWN.size:
            continue
        now = stamp(images, name)
        if now.size == UNKNOWN.size or (now.size == 0 and size > 0):
            continue
        if now.size != size:
            changed.append(name)
        elif now.mark != mark:
            touched.append((name, crc32))
    places = np.random.default_rng(0).permutation(len(touched))[:COMPARED]
    compared = [(name, crc32, checksum(images, name)) for name, crc32 in (touched[place] for place in places)]
    differ = [name for name, before, now in compared if before and now and before != now]
    if touched and not differ:
        _log.info("%d pictures have other times than when the crop cache was made, %d of them compared equal",
                  len(touched), len(places))  # fmt: skip
    return changed + differ
