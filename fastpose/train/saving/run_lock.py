"""One training in one run folder."""

from __future__ import annotations

import errno
import fcntl
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from fastpose.errors import OutputError

Key = tuple[int, int]

_held: set[Key] = set()
"""Folders that this process has locked, which a lock of the system does not keep from itself."""
_guard = threading.Lock()


class RunLock:
    """A run folder taken by this process, until `close` or the end of the `with` block."""

    def __init__(self, handle: IO[str], key: Key) -> None:
        self._handle, self._key = handle, key

    def close(self) -> None:
        """Gives the folder back; again does nothing."""
        with _guard:
            if not self._handle.closed:
                self._handle.close()
                _held.discard(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_run(folder: Path) -> RunLock:
    """Takes the run folder for this process.

    Raises:
        OutputError: another training has it, in this process or in another; or its file system has no locks.
    """
    with _guard:
        try:
            status = folder.stat()
            key = status.st_dev, status.st_ino
            if key in _held:  # and opened again it would be free: closing any handle gives up the lock
                raise _taken(folder, "a training of this process, or its last save,")
            handle = (folder / ".lock").open("a")
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
        try:
            # Not flock: loader workers would inherit it, and outlive a killed parent by seconds.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.close()
            raise _refused(folder, error) from error
        _held.add(key)
        return RunLock(handle, key)


def _taken(folder: Path, by: str) -> OutputError:
    return OutputError(f"{folder}: {by} uses this run folder; choose another run.name")


def _refused(folder: Path, error: OSError) -> OutputError:
    if error.errno in (errno.EACCES, errno.EAGAIN):
        return _taken(folder, "another training")
    return OutputError(
        f"{folder}: its file system takes no locks ({error.strerror or error}), which keep two trainings "
        "apart; choose another run.dir, on a local disk for example"
    )
