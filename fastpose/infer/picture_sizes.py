"""Sizes of picture files, from their headers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SIDEWAYS = (5, 6, 7, 8)
"""Values of the EXIF orientation, tag 0x0112, that turn a picture by a quarter."""


class OtherSize(NamedTuple):
    """Two pictures, and the (width, height) of each."""

    first: Path
    first_size: tuple[int, int]
    other: Path
    other_size: tuple[int, int]


def other_size(files: Iterable[Path], *, upright: bool = True) -> OtherSize | None:
    """The first picture whose size is not that of the one in front, and that one; None where all are alike.

    upright: the sizes are those of pictures turned as their EXIF data says. Files that cannot be read are
    passed over, and all of them without Pillow.
    """
    known: tuple[Path, tuple[int, int]] | None = None
    for file in files:
        size = _size(file, upright)
        if size is None:
            continue
        if known is not None and size != known[1]:
            return OtherSize(*known, file, size)
        known = file, size
    return None


def _size(file: Path, upright: bool) -> tuple[int, int] | None:
    try:
        from PIL import Image

        with Image.open(file) as image:
            width, height = image.size
            turned = upright and image.getexif().get(0x0112) in SIDEWAYS
    except Exception:  # what is damaged, or too large, is told by who reads it
        return None
    return (height, width) if turned else (width, height)
