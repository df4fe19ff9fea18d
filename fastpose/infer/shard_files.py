"""The pictures of one file of many: tar archives, Parquet files and lists of picture files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np

from fastpose.data.images import decode_pixels, read_image
from fastpose.errors import ConfigError, DataError, ImageError
from fastpose.infer.boxes_in import number_rows, usable_boxes
from fastpose.infer.images_in import to_bgr
from fastpose.infer.items import Item
from fastpose.infer.sources import EXTENSIONS

ROWS = 64
"""Of a Parquet file, in memory at once."""
PICTURES = ("bytes", "image", "jpg", "jpeg", "png", "path")
"""Columns that may hold a row's picture: encoded bytes, a struct with `bytes` or `path`, or the path of a
file."""
KEYS = ("key", "__key__", "file_name", "image_id", "path")
"""Columns that may name a row."""


@dataclass(frozen=True)
class Record:
    """A picture of a shard: `key` names it in the results; `data` are its encoded bytes or its pixels
    (H, W, 3) uint8 RGB, or else it is the file `path`; `boxes` (N, 4) and `box_score` (N,) are its own, None
    where the detector is to look; `problem` says why it cannot be used."""

    key: str
    data: bytes | np.ndarray | None = None
    path: Path | None = None
    boxes: Any = None
    box_score: Any = None
    problem: str = ""

    def item(self, index: int, where: str, *, upright: bool) -> Item:
        """The record as a picture that is not decoded yet; errors call it by `where` and its key.

        Boxes that are none make it a picture that cannot be read.
        """
        problem, boxes = self.problem, None
        try:
            if self.boxes is not None:
                boxes = number_rows("boxes", self.boxes, 4), self.box_score
                usable_boxes(*boxes, 1, 1)
        except DataError as error:
            problem = problem or str(error)
        load = partial(_load, self, problem, f"{where}: {self.key}", upright)
        return Item(index, self.key, load, Path(self.key), again=False, ahead=True, boxes=boxes)


def _load(record: Record, problem: str, name: str, upright: bool) -> np.ndarray:
    if problem:
        raise ImageError(f"{name}: {problem}")
    if isinstance(record.data, np.ndarray):
        colours = record.data.ndim == 3 and record.data.shape[2] in (3, 4)
        return to_bgr(record.data[..., [2, 1, 0]] if colours else record.data, name)
    if record.data is not None:
        flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        return decode_pixels(record.data, name, flags)
    if record.path is not None:
        return read_image(record.path, upright=upright)
    raise ImageError(f"{name}: there is no picture")


def folder_records(root: Path, names: tuple[str, ...]) -> Iterator[Record]:
    """Picture files of a folder, by their names in it."""
    for name in names:
        yield Record(name, path=root / name)


def tar_records(path: Path) -> Iterator[Record]:
    """The pictures of a tar, in its order; a json of the same stem, next to its picture, may hold `boxes` and
    `box_score`, as WebDataset archives are made.

    Raises DataError where the archive is damaged or cut short: what came before it is then no whole shard.
    """
    picture: Record | None = None
    fields: tuple[str, dict[str, Any]] = ("", {})
    for name, data in _members(path):
        if PurePath(name).suffix.lower() != ".json":
            if picture is not None:
                yield picture
            stem, boxes = fields
            picture = Record(name, data, **(boxes if stem == _stem(name) else {}))
            continue
        boxes = _boxes_of(data, name)
        if picture is not None and _stem(picture.key) == _stem(name):
            picture = Record(picture.key, picture.data, **boxes)
        fields = _stem(name), boxes
    if picture is not None:
        yield picture


def _stem(name: str) -> str:
    return str(PurePath(name).with_suffix(""))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Pictures and json files with their bytes."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                suffix = PurePath(member.name).suffix.lower()
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None and suffix in (*EXTENSIONS, ".json"):
                    yield member.name, file.read()
            if not _has_end(archive):
                raise DataError(f"{path}: the archive is cut short, its end is missing; copy it again")
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{path}: not a readable tar ({error}); copy it again") from error


def _has_end(archive: tarfile.TarFile) -> bool:
    """Whether a block of zeros follows the last member: cut between two members, an archive looks whole."""
    file: Any = archive.fileobj
    file.seek(archive.offset)
    return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _boxes_of(data: bytes, name: str) -> dict[str, Any]:
    """`boxes` and `box_score` of a json, or its `problem`; others of its fields do not matter."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        return {"problem": f"{name} is not JSON: {error}"}
    if not isinstance(fields, dict):
        return {"problem": f"{name}: expected an object with boxes, got {type(fields).__name__}"}
    return {name: fields[name] for name in ("boxes", "box_score") if fields.get(name) is not None}


def parquet_records(path: Path) -> Iterator[Record]:
    """The rows of a Parquet file: a picture in one of the columns PICTURES, its name in one of KEYS, else its
    number; `boxes` and `box_score` where they are there.

    Paths are relative to the file's folder. Raises DataError for a file that is none or has no such column,
    ConfigError where pyarrow is not installed.
    """
    arrow, parquet = import_arrow()
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = next((name for name in PICTURES if name in names), None)
            if column is None:
                raise DataError(
                    f"{path}: no column of pictures; expected one of {', '.join(PICTURES)}, "
                    f"got {', '.join(names)}"
                )
            key = next((name for name in KEYS if name in names), None)
            wanted = [name for name in (column, key, "boxes", "box_score") if name in names]
            number = 0
            for batch in file.iter_batches(ROWS, columns=list(dict.fromkeys(wanted))):
                for row in batch.to_pylist():
                    yield row_record(row, column, str(row[key]) if key else f"row-{number:06d}", path.parent)
                    number += 1
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def row_record(row: Mapping[str, Any], column: str, key: str, root: Path) -> Record:
    """A row of a table whose picture is in `column`: encoded bytes, pixels in RGB order, a path relative to
    `root`, or a struct with `bytes` or `path`."""
    value = row[column]
    boxes = {name: row[name] for name in ("boxes", "box_score") if row.get(name) is not None}
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Record(key, bytes(value), **boxes)
    if isinstance(value, np.ndarray):
        return Record(key, value, **boxes)
    if isinstance(value, (str, Path)):
        return Record(key, path=root / value, **boxes)
    return Record(key, problem=f"column {column} holds no picture but {type(value).__name__}", **boxes)


def import_arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet; ConfigError where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet files need pyarrow, which is not installed: pip install pyarrow"
        ) from error
    return pyarrow, pyarrow.parquet
