"""Decoded pictures kept in memory, the least recently used thrown out first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class HasBytes(Protocol):
    """A picture as an array, or a Region."""

    @property
    def nbytes(self) -> int: ...


Picture = TypeVar("Picture", bound=HasBytes)


class ImageCache(Generic[Picture]):
    """Holds up to `limit_bytes` of pictures; the last one always stays, because persons of one picture
    often follow each other. What it returns must not be written to."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._images: OrderedDict[int, Picture] = OrderedDict()
        self._bytes = 0

    def get(self, key: int, load: Callable[[], Picture]) -> Picture:
        """The picture under `key`, loaded if it is not here."""
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        image = load()
        self._images[key] = image
        self._bytes += image.nbytes
        while self._bytes > self.limit_bytes and len(self._images) > 1:
            self._bytes -= self._images.popitem(last=False)[1].nbytes
        return image
