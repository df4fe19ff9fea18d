"""Where pictures are kept (a folder or a zip) and how their bytes become pixels."""

from __future__ import annotations

import os
import re
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from fastpose.data.headers import FORMATS, image_size, is_truncated
from fastpose.errors import ImageError

MAX_PIXELS = 100_000_000
MAX_SIDE = 32_767  # cv2.warpAffine keeps source coordinates in int16
MAX_BYTES = 512 << 20
_HEAD_BYTES = 64 << 10


class MissingImageError(ImageError):
    """There is no file or zip member of that name."""


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Pixels of an encoded picture, (H, W, 3) uint8 in BGR order.

    Grey becomes three equal channels, 16 bits become 8, alpha is dropped, CMYK is converted and the EXIF
    orientation is ignored, as in hrnet lib/dataset/JointsDataset.py. `name` only serves the message.
    Raises ImageError: not a JPEG, PNG, BMP or WebP, cut short, damaged, or larger than 100 megapixels or
    32,767 pixels on a side (read from the header, before any memory is taken for pixels).
    """
    return decode_pixels(data, name, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def decode_pixels(data: bytes, name: str, flags: int) -> np.ndarray:
    """What `cv2.imdecode` makes of the bytes with these flags; ImageError as `decode_image`."""
    reason = header_problem(data, whole=True)
    if reason is not None:
        raise ImageError(f"{name}: {reason}")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{name}: cannot be decoded ({error.err}); replace the file") from None
    if image is None:
        raise ImageError(f"{name}: cannot be decoded, the data is damaged; replace the file")
    return image


def read_image(path: str | os.PathLike[str], *, upright: bool = False) -> np.ndarray:
    """`decode_image` of a file of the user's choice, turned as its EXIF orientation says if `upright`;
    ImageError when it cannot be had."""
    name = os.fspath(path)
    if upright:
        return decode_pixels(_read_file(name), name, cv2.IMREAD_COLOR)
    return decode_image(_read_file(name), name)


def unsafe_name(name: str) -> str | None:
    """Why a file name from an annotation file is refused without looking at the disk, or None."""
    if not name:
        return "the file name is empty"
    if "\0" in name:
        return "the file name holds a NUL character"
    if "\\" in name:
        return "the file name holds a backslash; write paths with /"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "the file name is an absolute path; give it relative to the image root"
    if ".." in name.split("/"):
        return "the file name leaves the image root with '..'"
    return None


class FolderImages:
    """Pictures in a folder, named relative to it; a name or link that leaves the folder is refused."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Raises ImageError when `root` is not a folder."""
        if not os.path.isdir(root):
            raise ImageError(f"{os.fspath(root)}: no such image folder; check the path")
        self.root = os.path.realpath(root)

    def read(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 BGR; ImageError naming the file and the reason."""
        path = self._path(name)
        return decode_image(_read_file(path), path)

    def data(self, name: str) -> bytes:
        """The file as it is; ImageError when it cannot be had."""
        return _read_file(self._path(name))

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) from the header; ImageError as `read`, except that pixels are not looked at."""
        path = self._path(name)
        return _size(_read_file(path, _HEAD_BYTES), lambda: _read_file(path), path)

    def problem(self, name: str) -> str | None:
        """Why `read` would fail as far as path, file and header tell, or None."""
        return _problem(self, name)

    def _path(self, name: str) -> str:
        reason = unsafe_name(name)
        if reason is not None:
            raise ImageError(f"{name!r} refused: {reason}")
        path = os.path.realpath(os.path.join(self.root, name))
        if not path.startswith(os.path.join(self.root, "")):
            raise ImageError(f"{name!r} refused: it is a link that leaves the image root {self.root}")
        return path


class ZipImages:
    """Pictures in a zip, as `FolderImages`; `prefix` is put before every name (official: "val2017/").

    The archive is opened once per process, on first use: a file offset shared with a forked worker would
    mix up their reads.
    """

    def __init__(self, path: str | os.PathLike[str], prefix: str = "") -> None:
        self.path, self.prefix = os.path.realpath(path), prefix
        self._open: tuple[int, zipfile.ZipFile] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ZipImages], tuple[str, str]]:
        return ZipImages, (self.path, self.prefix)

    def names(self) -> list[str]:
        """Every member's full name; ImageError when the file is not a zip."""
        return self._archive().namelist()

    def read(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 BGR; ImageError naming archive, member and the reason."""
        return decode_image(self.data(name), f"{self.path}: {self.prefix}{name}")

    def data(self, name: str) -> bytes:
        """The member as it is; ImageError when it cannot be had."""
        return self._bytes(name)

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) from the header; ImageError as `read`, except that pixels are not looked at."""
        head = self._bytes(name, _HEAD_BYTES)
        return _size(head, lambda: self._bytes(name), f"{self.path}: {self.prefix}{name}")

    def problem(self, name: str) -> str | None:
        """Why `read` would fail as far as name, member and header tell, or None."""
        return _problem(self, name)

    def member(self, name: str) -> zipfile.ZipInfo:
        """Size and CRC-32 of a picture as the archive keeps them; MissingImageError where there is none."""
        try:
            return self._archive().getinfo(self.prefix + name)
        except KeyError:
            raise MissingImageError(f"{self.path}: {self.prefix}{name}: no such image in the zip") from None

    def _archive(self) -> zipfile.ZipFile:
        with self._lock:
            if self._open is None or self._open[0] != os.getpid():
                try:
                    self._open = os.getpid(), zipfile.ZipFile(self.path)
                except (OSError, zipfile.BadZipFile) as error:
                    raise ImageError(f"{self.path}: not a readable zip ({error})") from None
            return self._open[1]

    def _bytes(self, name: str, limit: int = -1) -> bytes:
        reason = unsafe_name(name)
        if reason is not None:
            raise ImageError(f"{name!r} refused: {reason}")
        where = f"{self.path}: {self.prefix}{name}"
        archive = self._archive()
        try:
            member = self.member(name)
            if member.file_size > MAX_BYTES:
                raise ImageError(f"{where}: {member.file_size} bytes, more than {MAX_BYTES}")
            with archive.open(member) as file:
                return file.read(limit)
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ImageError(f"{where}: cannot be read from the zip ({error})") from None


def open_images(path: str | os.PathLike[str]) -> FolderImages | ZipImages:
    """The folder `path`, else the zip `path`, else the zip `path`.zip, whose names may all lie in a folder
    called like the zip (as in the official val2017.zip). Raises ImageError naming what was looked for."""
    if os.path.isdir(path):
        return FolderImages(path)
    beside = f"{os.fspath(path)}.zip"
    for candidate in (os.fspath(path), beside):
        if os.path.isfile(candidate):
            folder = f"{Path(candidate).stem}/"
            inside = any(name.startswith(folder) for name in ZipImages(candidate).names())
            return ZipImages(candidate, folder if inside else "")
    raise ImageError(f"{os.fspath(path)}: no images there; looked for that folder, that file and {beside}")


def header_problem(data: bytes, *, whole: bool) -> str | None:
    """Why a file cannot be a picture, as far as its header, and with `whole` its length, tell; or None."""
    size = image_size(data)
    if size is None:
        return f"not an image ({len(data)} bytes without a header of {FORMATS})"
    width, height = size
    if width < 1 or height < 1:
        return f"the header gives {width}x{height} pixels"
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        return f"{width}x{height} pixels are too many; at most {MAX_PIXELS} in all, {MAX_SIDE} on a side"
    if whole and is_truncated(data):
        return f"the file is cut short after {len(data)} bytes; copy or download it again"
    return None


def _size(head: bytes, load: Callable[[], bytes], name: str) -> tuple[int, int]:
    long_metadata = len(head) == _HEAD_BYTES and image_size(head) is None
    data = load() if long_metadata else head
    reason = header_problem(data, whole=False)
    if reason is not None:
        raise ImageError(f"{name}: {reason}")
    return image_size(data) or (0, 0)


def _problem(images: FolderImages | ZipImages, name: str) -> str | None:
    try:
        images.size(name)
    except ImageError as error:
        return str(error)
    return None


def _read_file(path: str, limit: int = -1) -> bytes:
    if not os.path.isfile(path):
        raise MissingImageError(f"{path[:500]}: no such image file")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit) if size <= MAX_BYTES else None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    if data is None:
        raise ImageError(f"{path}: {size} bytes, more than {MAX_BYTES}")
    return data
