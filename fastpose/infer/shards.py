"""Millions of pictures as shards: parts of the work that are done, written and left out as a whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastpose.errors import DataError
from fastpose.infer.items import Item
from fastpose.infer.shard_files import Record, folder_records, parquet_records, tar_records
from fastpose.infer.sources import EXTENSIONS

ARCHIVES = (".tar", ".tar.gz", ".tgz")
TABLES = (".parquet",)
PICTURES = 1000
"""Files in a shard of a folder, unless asked for otherwise: some minutes of work on a CPU."""


@dataclass(frozen=True)
class Shard:
    """Pictures that are predicted together: those of a tar, of a Parquet file, or some files of a folder.

    `name` is fit for a file and unlike those of the run's other shards; `digest` tells whether it is still
    the same work: of the names of files, or of an archive's name and size.
    """

    name: str
    path: Path
    digest: str
    files: tuple[str, ...] | None = None

    def records(self) -> Iterator[Record]:
        """Its pictures one by one; DataError where an archive or a table cannot be read."""
        if self.files is not None:
            return folder_records(self.path, self.files)
        return parquet_records(self.path) if _ends(self.path, TABLES) else tar_records(self.path)

    def items(self, *, upright: bool = True) -> Iterator[Item]:
        """Its pictures for `Predictor.run_items`."""
        for index, record in enumerate(self.records()):
            yield record.item(index, str(self.path), upright=upright)


def find_shards(source: str | Path | Sequence[str | Path], *, pictures: int = PICTURES) -> list[Shard]:
    """The shards of a tar or Parquet file, of a list or folder of them, or of a folder of pictures.

    A folder of pictures is searched to the bottom, hidden files and folders left out, and cut into shards of
    `pictures` files in the order of their names. The answer depends on the source alone, so that every
    process of a run, and the next run, finds the same shards. Raises DataError where there is none.
    """
    if not isinstance(pictures, int) or pictures < 1:
        raise DataError(f"pictures: expected a whole number above 0, got {pictures!r}")
    if isinstance(source, (str, Path)):
        path = Path(source).absolute()  # workers may have another working folder
        if path.is_dir():
            return _of_folder(path, pictures)
        source = [path]
    paths = [Path(path).absolute() for path in source]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file or folder")
        if not _ends(path, ARCHIVES + TABLES):
            raise DataError(f"{path}: expected a folder, {', '.join(ARCHIVES + TABLES)}")
    if len(set(paths)) < len(paths) or not paths:
        raise DataError("source: no file" if not paths else "source: a file is named twice")
    return [_of_file(path, number) for number, path in enumerate(paths)]


def _of_folder(root: Path, pictures: int) -> list[Shard]:
    names = sorted(_below(root))
    packed = [name for name in names if _ends(Path(name), ARCHIVES + TABLES)]
    files = [name for name in names if _ends(Path(name), EXTENSIONS)]
    if packed and files:
        raise DataError(
            f"{root}: holds pictures ({files[0]}) and archives ({packed[0]}); name the archives themselves"
        )
    if not packed and not files:
        raise DataError(f"{root}: no picture ({', '.join(EXTENSIONS)}), tar or Parquet file in this folder")
    if packed:
        return [_of_file(root / name, number) for number, name in enumerate(packed)]
    parts = [tuple(files[start : start + pictures]) for start in range(0, len(files), pictures)]
    return [
        Shard(_name(number, part[0]), root, _digest("\n".join(part)), part)
        for number, part in enumerate(parts)
    ]


def _below(folder: Path) -> Iterator[str]:
    """Files of a folder and all below it, relative to it, without hidden ones; links to folders are not
    followed."""
    for where, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                yield Path(where, name).relative_to(folder).as_posix()


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def _of_file(path: Path, number: int) -> Shard:
    return Shard(_name(number, path.name), path, _digest(f"{path.name}\n{path.stat().st_size}"))


def _name(number: int, first: str) -> str:
    """00012-STEM, of letters that every file system takes."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(first).name.split(".")[0])[:60]
    return f"{number:05d}-{stem}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _ends(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)
