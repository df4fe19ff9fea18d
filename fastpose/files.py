"""Writing files so that a kill at any moment leaves the old one or the new one, never half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fastpose.errors import OutputError


def make_folder(path: Path) -> Path:
    """Creates a folder (and its parents); OutputError when it cannot be created or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be created: {error.strerror or error}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: no permission to write here; choose another folder")
    return path


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary)` in the same folder, flushes it to the disk and renames it to `path`.

    Where that fails or is interrupted, `path` is as it was and nothing else stays behind; OutputError for an
    error of the disk, any other as it is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def write_text(path: Path, text: str) -> None:
    """`write_atomic` for text in UTF-8."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def flush(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class DigestedFile:
    """A file that `torch.save` and the like write to: hashed as it is written, on the disk once closed.

    An error of the disk is kept until `close` raises it: torch's C++ writer loses its kind, and what is
    behind it by then.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._sha256 = hashlib.sha256()
        self._error: OSError | None = None

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all that was to be written."""
        return self._sha256.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        self._sha256.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: `close` does it."""

    def close(self) -> None:
        """Onto the disk, or OSError."""
        with self._file as file:
            if self._error is None:
                file.flush()
                os.fsync(file.fileno())
        if self._error is not None:
            raise self._error


def write_digested(path: Path, write: Callable[[DigestedFile], object]) -> str:
    """Creates a file by `write`, puts it on the disk and returns its SHA-256; OSError as the disk says it."""
    file = DigestedFile(path)
    try:
        write(file)
    finally:
        file.close()
    return file.digest


def remove_folder(path: Path) -> None:
    """Deletes a folder so that a kill leaves it whole or under a name that `remove_leftovers` knows.

    OSError where it cannot be deleted; one that is not there is no error.
    """
    doomed = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, doomed)
        shutil.rmtree(doomed)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Deletes what `write_atomic` and the like were building when the process was killed."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
