"""Saving while the training goes on, and what happens when it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch

from fastpose.errors import ConfigError, OutputError
from fastpose.models import Network
from fastpose.train.saving.checkpoint import write_state
from fastpose.train.saving.host_copy import HostCopier
from fastpose.train.saving.progress import Progress
from fastpose.train.saving.random_states import RandomStates
from fastpose.train.saving.retention import Retention
from fastpose.train.saving.snapshot import Extra, Snapshot, WeightsBytes, WeightsFile, take_snapshot

logger = logging.getLogger(__name__)

OnError = Literal["stop", "continue"]

LONG_WAIT_S = 1.0


class StateSaver:
    """Writes the training states of one run, one at a time, by a thread of its own.

    `save` copies everything to host memory and returns; the disk sees it later. A save that comes while
    another is under way waits for it: to skip it would leave a state older than one interval. An error of
    the thread is raised by the next `check`, `wait` or `save`, or on leaving the context, which waits for the
    thread whatever it is left by.

    Args:
        folder: of the states.
        retention: which of them stay.
        background: False writes within `save`.
        on_error: what an output that cannot be written does: "stop" raises OutputError; "continue" tells it
            and counts it in `failed`, and the training goes on with the states before, which are intact. A
            weights file is then held in memory and tried again with every save and at the end, until it is
            written or a later one takes its place: no score is told of weights that are nowhere.

    `saved` counts the states written, `waited` the seconds that saves have waited for those before them.
    """

    def __init__(
        self,
        folder: Path,
        retention: Retention | None = None,
        *,
        background: bool = True,
        on_error: OnError = "stop",
    ) -> None:
        if on_error not in ("stop", "continue"):
            raise ConfigError(f"train.on_save_error={on_error}: must be stop or continue")
        self.folder, self.retention = folder, retention or Retention()
        self.background, self.on_error = background, on_error
        self.saved = self.failed = 0
        self.waited = 0.0
        self._copier = HostCopier()
        self._thread: threading.Thread | None = None
        self._errors: list[BaseException] = []
        self._unwritten: dict[Path, WeightsBytes] = {}

    def save(
        self,
        model: Network,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        progress: Progress,
        *,
        extra: Extra | None = None,
        random: RandomStates | None = None,
        publish: Sequence[WeightsFile] = (),
    ) -> None:
        """Saves the state that stands behind the steps begun so far, after the weights files of `publish`.

        See `take_snapshot`. Raises OutputError for the save before, or in the foreground for this one.
        """
        self._wait_for_the_last()
        snapshot = take_snapshot(
            model, optimizer, scaler, progress, extra=extra, random=random, copier=self._copier
        )
        work = (snapshot, progress.best_epoch, tuple(publish))
        if self.background:
            # Not a daemon: an interpreter that ends in between waits for the write.
            self._thread = threading.Thread(target=self._write, args=work, name="fastpose-save")
            self._thread.start()
        else:
            self._write(*work)
            self.check()

    def check(self) -> None:
        """Raises what a finished save has to say; does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        if self._thread is None:
            self._tell()

    def wait(self) -> None:
        """Until nothing is under way; then as `check`."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def attempt(self, write: Callable[[], object]) -> None:
        """Calls `write`, and treats its OutputError as that of a save."""
        try:
            write()
        except OutputError as error:
            self._errors.append(error)
            self._tell()

    def when_idle(self, call: Callable[[], object]) -> None:
        """Calls `call` once no thread writes any more; at once where none does, and never waits for it."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            call()
            return

        def wait_and_call() -> None:
            thread.join()
            call()

        threading.Thread(target=wait_and_call, name="fastpose-save-end").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
            self._put_the_rest()
        except OutputError as failure:
            if error is None:
                raise
            logger.error("%s", failure)
        if self.failed:
            logger.warning("%d outputs of this run could not be written; see above", self.failed)

    def _write(self, snapshot: Snapshot, best_epoch: int | None, publish: Sequence[WeightsFile]) -> None:
        for file in publish:
            self._unwritten.pop(file.path, None)
        for weights in list(self._unwritten.values()):
            self._collect(partial(self._put, weights))
        for file in publish:
            self._collect(partial(self._publish, snapshot, file))
        self._collect(partial(self._write_state, snapshot, best_epoch))

    def _publish(self, snapshot: Snapshot, file: WeightsFile) -> None:
        self._put(snapshot.weights_file(file))

    def _put_the_rest(self) -> None:
        """The last chance of weights files that failed."""
        for weights in list(self._unwritten.values()):
            try:
                self._put(weights)
            except OutputError as error:
                logger.error("%s; what it should hold is lost", error)

    def _put(self, weights: WeightsBytes) -> None:
        try:
            weights.write()
        except OutputError:
            if self.on_error == "continue":
                self._unwritten[weights.path] = weights
            raise
        self._unwritten.pop(weights.path, None)

    def _write_state(self, snapshot: Snapshot, best_epoch: int | None) -> None:
        state = write_state(self.folder, snapshot)
        self.saved += 1
        self.retention.apply(self.folder, best_epoch)
        if self.saved == 1:
            logger.info("%s: %s", self.folder, self.retention.describe(state))

    def _collect(self, write: Callable[[], object]) -> None:
        """Calls `write`; a thread has nobody to raise to, so its error waits until `_tell`."""
        try:
            write()
        except BaseException as error:
            self._errors.append(error)

    def _tell(self) -> None:
        errors, self._errors = self._errors, []
        grave = [error for error in errors if self.on_error == "stop" or not isinstance(error, OutputError)]
        for error in errors:
            if error is not (grave[0] if grave else None):
                logger.warning("%s", error)
        if grave:
            raise grave[0]
        self.failed += len(errors)
        if errors:
            logger.warning(
                "train.on_save_error=continue: the training goes on; errors so far: %d", self.failed
            )

    def _wait_for_the_last(self) -> None:
        started = time.perf_counter()
        self.wait()
        seconds = time.perf_counter() - started
        if seconds > LONG_WAIT_S and self.waited <= LONG_WAIT_S:
            logger.warning("the training waited %.1f s for the save before: save less often", seconds)
        self.waited += seconds
