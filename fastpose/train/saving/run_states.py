"""A run's states between its processes and its folder, which is locked meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fastpose.files import make_folder, remove_leftovers
from fastpose.models import Network
from fastpose.train.config import Config
from fastpose.train.config_io import save_config
from fastpose.train.engine.ema import Ema
from fastpose.train.engine.step import TrainStep
from fastpose.train.parallel.distributed import World
from fastpose.train.saving.async_save import StateSaver
from fastpose.train.saving.checkpoint import load_state
from fastpose.train.saving.job import note_job
from fastpose.train.saving.progress import Progress, lower_to_best_file
from fastpose.train.saving.random_states import RandomStates
from fastpose.train.saving.retention import Retention
from fastpose.train.saving.run_folder import (
    CHECKPOINTS,
    check_resumable,
    check_same_data,
    note_cache,
    note_data,
)
from fastpose.train.saving.run_lock import RunLock, lock_run
from fastpose.train.saving.snapshot import WeightsFile

BEST = "best"


class RunStates:
    """`open` once, then `save` within `with`. Rank 0 alone touches the folder; no disk has to be shared.

    `data`: digests of the tables, which a run that goes on must have again.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        world: World,
        model: Network,
        step: TrainStep,
        ema: Ema | None,
        data: dict[str, str] | None = None,
    ) -> None:
        self.config, self.folder, self.world = config, folder, world
        self.data = data or {}
        self.model, self.step = model, step
        self.random = RandomStates()
        self.extra = {"ema": ema} if ema else {}
        self.saver = StateSaver(
            folder / CHECKPOINTS,
            Retention(config.train.keep, config.train.keep_every),
            background=config.train.async_save,
            on_error=config.train.on_save_error,
        )
        self.lock: RunLock | None = None

    def open(self, step_samples: int) -> tuple[Progress, bool]:
        """Every process goes on from the state that rank 0 has read, or starts; and whether there was one."""
        world = self.world
        self.lock = lock_run(make_folder(self.folder)) if world.is_main else None
        try:
            fields = world.from_main(self._read)
            things = {"model": self.model, "optimizer": self.step.optimizer, "scaler": self.step.scaler}
            world.copy_from_main({**things, **self.extra, "random": self.random})
        except BaseException:
            self._unlock()
            raise
        self.random.restore(world.rank, world.size)
        progress = Progress(**fields) if fields else Progress(step_samples=step_samples)
        progress.in_steps_of(step_samples)
        if fields is None:
            world.seed(self.config.run.seed)
        return progress, fields is not None

    def _read(self) -> dict[str, Any] | None:
        """config.yaml changes only once the state has proved to fit."""
        check_resumable(self.config, self.folder)
        check_same_data(self.folder, self.data)
        for place in (self.folder, self.folder / CHECKPOINTS):
            remove_leftovers(place)
        state = load_state(
            self.folder / CHECKPOINTS,
            self.model,
            self.step.optimizer,
            self.step.scaler,
            extra=self.extra,
            random=self.random,
        )
        save_config(self.config, self.folder / "config.yaml")
        note_cache(self.config, self.folder)
        note_data(self.folder, self.data)
        note_job(self.folder, self.world.job)
        if state:
            lower_to_best_file(state, self.folder / f"{BEST}.json")
        return asdict(state) if state else None

    def save(self, progress: Progress, note: dict[str, Any] | None = None, best: bool = False) -> None:
        """A training state; with `note` also the weights as last.safetensors, and best.safetensors if so."""
        world = self.world
        self.random.collect(lambda row: world.gather_rows(row, [1] * world.size))
        if world.is_main:
            self._write(progress, note, best)
        world.sum([0.0])  # the others wait here, an hour if it must be, and not at a barrier of seconds

    def _write(self, progress: Progress, note: dict[str, Any] | None, best: bool) -> None:
        named = [] if note is None else [BEST, "last"] if best else ["last"]
        average = "ema" if self.extra else None
        files = [WeightsFile(self.folder / name, note or {}, of=average) for name in named]
        self.saver.save(
            self.model,
            self.step.optimizer,
            self.step.scaler,
            progress,
            extra=self.extra,
            random=self.random,
            publish=files,
        )

    def check(self) -> None:
        """Raises what a save in the background has to say, without waiting for it."""
        self.saver.check()

    def wait(self) -> None:
        """Until no save is under way; raises as `check`."""
        self.saver.wait()

    def attempt(self, write: Callable[[], object]) -> None:
        """Calls `write`, another output of the run, and treats its OutputError as that of a save."""
        self.saver.attempt(write)

    def _unlock(self) -> None:
        """Also where a second Ctrl-C breaks off the wait for the thread that writes: it keeps the lock."""
        if self.lock is not None:
            self.saver.when_idle(self.lock.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.saver.__exit__(kind, error, trace)
        finally:
            self._unlock()
