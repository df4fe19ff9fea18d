"""Reading a crop cache: of every person the part of the picture that the augmentation can reach."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data.augment import Augmentation
from fastpose.data.images import FolderImages, ZipImages, decode_image
from fastpose.data.persons import PersonTable
from fastpose.data.reach import clip_reach, reach
from fastpose.data.region import Region
from fastpose.data.sources import UNKNOWN, changed_sources
from fastpose.errors import ConfigError, DataError, ImageError
from fastpose.files import sha256 as file_sha256

FORMAT = 2
READABLE = (1, 2)  # 1 says nothing about the pictures' files
MANIFEST, INDEX = "manifest.json", "index.npy"
ROW = np.dtype(
    [
        ("shard", "<i4"),
        ("offset", "<i8"),
        ("length", "<i8"),  # bytes; 0 where the picture could not be read
        ("crc32", "<u4"),
        ("x", "<i4"),  # corner of the region in the picture
        ("y", "<i4"),
        ("width", "<i4"),  # of the region in pixels of the picture
        ("height", "<i4"),
        ("picture_width", "<i4"),
        ("picture_height", "<i4"),
        ("factor", "<i4"),
        ("source_size", "<i8"),  # these three: `fastpose.data.sources.Source`
        ("source_mark", "<i8"),
        ("source_crc32", "<i8"),
    ]
)
SOURCE = ["source_size", "source_mark", "source_crc32"]


class CropCache:
    """The finished cache in a folder that `fastpose prepare` wrote. Survives forks and pickling.

    Raises DataError when it is unfinished, damaged as far as its manifest, index and file sizes tell, or of
    another version. `verify` reads every byte.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._files: dict[int, int] = {}
        self.manifest = read_manifest(self.folder)
        index = self.folder / INDEX
        try:
            if file_sha256(index) != self.manifest["index_sha256"]:
                raise DataError(f"{index}: its checksum differs from {MANIFEST}'s; {_AGAIN}")
            self.rows = _with_sources(np.load(index, allow_pickle=False))
            for number, shard in enumerate(self.manifest["shards"]):
                path = shard_path(self.folder, number)
                if path.stat().st_size != shard["bytes"]:
                    raise DataError(
                        f"{path}: {path.stat().st_size} bytes instead of {shard['bytes']}; {_AGAIN}"
                    )
        except (OSError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.folder}: the crop cache is damaged ({error}); {_AGAIN}") from None
        if self.rows.dtype != ROW or self.rows.shape != (self.manifest["recipe"]["persons"],):
            raise DataError(f"{index}: not the index of {MANIFEST}; {_AGAIN}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    def __del__(self) -> None:
        for handle in getattr(self, "_files", {}).values():
            with contextlib.suppress(OSError):
                os.close(handle)

    def read(self, row: int, name: str) -> Region:
        """The region of person `row` of the table; `name` of the picture only serves the message.

        Raises ImageError: checksum, size or encoding are wrong, or the picture could not be read when the
        cache was built.
        """
        shard, offset, length, crc32, x, y, width, height, *rest = self.rows[row].tolist()
        picture, factor = (rest[0], rest[1]), rest[2]
        if length == 0:
            raise ImageError(f"{name}: person {row} is not in {self.folder}: its picture was unreadable then")
        where = f"{name}: person {row} in {shard_path(self.folder, shard)} at byte {offset}"
        try:
            data = os.pread(self._handle(shard), length, offset)
        except OSError as error:
            raise ImageError(f"{where}: cannot be read ({error.strerror})") from None
        if len(data) != length or zlib.crc32(data) != crc32:
            raise ImageError(f"{where}: the checksum differs, the shard is damaged; {_AGAIN}")
        raw = self.manifest["recipe"]["kind"] == "raw"
        pixels = np.frombuffer(data, np.uint8) if raw else decode_image(data, where)
        size = height // factor, width // factor
        if pixels.size != size[0] * size[1] * 3:
            raise ImageError(f"{where}: {pixels.size} bytes of pixels for {size[1]}x{size[0]}; {_AGAIN}")
        return Region(pixels.reshape(*size, 3), (x, y), picture, factor)

    def check_fits(self, table: PersonTable, augmentation: Augmentation | None, aspect_ratio: float) -> None:
        """ConfigError with the reason where a crop of `table` could show more than the cache holds, or where
        it holds other persons or pictures. An augmentation smaller than the cache was built for fits."""
        recipe = self.manifest["recipe"]
        if recipe["table"] != table_digest(table):
            raise ConfigError(
                f"{self.folder}: built from other annotations or boxes ({recipe['persons']} persons, the "
                f"configuration's data has {len(table)}); prepare a cache for these, in another folder"
            )
        rows = self.rows
        stored = np.flatnonzero(rows["length"] > 0)
        size = np.stack([rows["picture_width"], rows["picture_height"]], 1)[stored].astype(np.int64)
        needed = clip_reach(reach(table, augmentation, aspect_ratio)[stored], size)
        corner = np.stack([rows["x"], rows["y"]], 1)[stored]
        end = corner + np.stack([rows["width"], rows["height"]], 1)[stored]
        short = (needed[:, :2] < corner).any(1) | (needed[:, 2:] > end).any(1)
        if short.any():
            raise ConfigError(
                f"{self.folder}: built for {json.dumps(recipe['reach'])}; with this augmentation and input "
                f"size {int(short.sum())} of {len(stored)} persons reach beyond what it holds; prepare a "
                "cache for these settings, in another folder"
            )
        self.check_sources(table)

    def check_sources(self, table: PersonTable) -> None:
        """ConfigError where pictures have been replaced under their names since the cache was made.

        Looks at sizes and times, and reads files of which only the time has changed (`changed_sources`).
        """
        images, first = np.unique(table.image_index, return_index=True)
        sources = np.stack([self.rows[name][first] for name in SOURCE], 1)
        changed = changed_sources(table.images, table.file_names[images].tolist(), sources)
        if changed:
            names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
            raise ConfigError(
                f"{self.folder}: made from other pictures: {len(changed)} have changed since ({names}); put "
                f"them back, or {_AGAIN}"
            )

    def verify(self) -> None:
        """Reads every shard; DataError naming the first whose SHA-256 is not the manifest's."""
        for number, shard in enumerate(self.manifest["shards"]):
            path = shard_path(self.folder, number)
            if file_sha256(path) != shard["sha256"]:
                raise DataError(f"{path}: its SHA-256 differs from {MANIFEST}'s; {_AGAIN}")

    def _handle(self, shard: int) -> int:
        if shard not in self._files:
            self._files[shard] = os.open(shard_path(self.folder, shard), os.O_RDONLY)
        return self._files[shard]


_AGAIN = "delete the folder and run `fastpose prepare` again"


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard_{number:05d}.bin"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished cache; DataError when there is none or it is of another version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder}: no finished crop cache here; run `fastpose prepare CONFIG {folder}` to its end"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, recipe = manifest["format"], manifest["recipe"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error!r}); {_AGAIN}") from None
    if version not in READABLE or not isinstance(recipe, dict):
        known = " and ".join(map(str, READABLE))
        raise DataError(f"{path}: a crop cache of format {version}, this fastpose reads {known}; {_AGAIN}")
    return manifest


def _with_sources(rows: np.ndarray) -> np.ndarray:
    """An index of format 1 as one of format 2, where no source is known; any other array as it is."""
    if rows.dtype != np.dtype([field for field in ROW.descr if field[0] not in SOURCE]):
        return rows
    found = np.zeros(len(rows), ROW)
    for name in rows.dtype.names or ():
        found[name] = rows[name]
    for name, value in zip(SOURCE, UNKNOWN, strict=True):
        found[name] = value
    return found


def table_digest(table: PersonTable) -> str:
    """SHA-256 over all that a crop depends on besides files: pictures' names, joints, centres, scales, and
    for pictures that are drawn, what they are drawn from."""
    digest = sha256("\0".join(table.keypoints.names).encode())
    if not isinstance(table.images, (FolderImages, ZipImages)):
        digest.update(repr(table.images).encode())
    digest.update("\0".join(table.file_names.tolist()).encode("utf-8", "surrogatepass"))
    columns = (
        ("image_index", "<i8"),
        ("center", "<f4"),
        ("scale", "<f4"),
        ("joints", "<f8"),
        ("visible", "<f4"),
    )
    for name, kind in columns:
        digest.update(np.ascontiguousarray(getattr(table, name), kind).tobytes())
    return digest.hexdigest()
