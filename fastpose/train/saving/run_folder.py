"""One training in one run folder, and a resume only with settings that keep its figures comparable."""

from __future__ import annotations

import dataclasses
import fcntl
import logging
from pathlib import Path
from typing import IO, Any

from fastpose.errors import CheckpointError, ConfigError, OutputError
from fastpose.train.config import Config
from fastpose.train.config_io import load_config
from fastpose.train.saving.checkpoint import list_states

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
FREE = (  # what may differ when a run goes on: places, speed, and what is said about it
    "name", "data.root", "data.train_annotations", "data.train_images", "data.val_annotations",
    "data.val_images", "data.workers", "data.cache_mb", "data.on_bad", "model.weights", "model.init",
    "train.epochs", "train.lr", "train.milestones", "train.gamma", "train.schedule", "train.compile",
    "train.save_steps", "train.keep", "train.clip_grad", "train.weight_decay", "train.warmup_steps",
    "train.amp", "train.channels_last", "train.graph", "train.max_bad_steps", "train.keep_every",
    "train.async_save", "train.on_save_error", "train.bucket_mb", "data.warp", "run.patience", "val.every",
    "val.batch_size", "val.amp", "run.dir", "run.name", "run.device", "run.threads", "run.pictures_every",
    "run.tensorboard", "run.deterministic",
)  # fmt: skip


def lock_run(folder: Path) -> IO[str]:
    """Takes the run folder for this process; OutputError when another training has it."""
    try:
        handle = (folder / ".lock").open("a")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        # Not flock: loader workers would inherit it, and hold it for seconds after their parent was killed.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise OutputError(
            f"{folder}: another training uses this run folder; choose another run.name"
        ) from error
    return handle


def check_resumable(config: Config, folder: Path) -> None:
    """Raises where going on in `folder` would mix two different runs, or start one over an old one.

    ConfigError names settings that differ from the run's and are not in FREE; CheckpointError tells that
    results are there but no training state.
    """
    if not list_states(folder / CHECKPOINTS):
        # The first epoch's results are written just before its state, so one row alone may be a kill's doing.
        results = folder / "results.csv"
        if results.is_file() and len(results.read_text().splitlines()) > 2:
            raise CheckpointError(
                f"{folder}: has results but no training state to resume from; choose another run.name"
            )
        return
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(
            f"{folder}: config.yaml is gone, so nobody knows what its training states are of"
        )
    before, now = _flat(load_config(folder / "config.yaml")), _flat(config)
    changed = [key for key in now if now[key] != before.get(key)]
    fixed = [f"{key}={now[key]} (the run has {before.get(key)})" for key in changed if key not in FREE]
    if fixed:
        raise ConfigError(
            f"{folder}: cannot be resumed with {', '.join(fixed)}; leave these as they were, or start "
            "a new run"
        )
    for key in changed:
        logger.info("%s: %s was %s and is now %s", folder, key, before.get(key), now[key])


def _flat(group: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(group):
        value, key = getattr(group, field.name), f"{prefix}{field.name}"
        flat |= _flat(value, f"{key}.") if dataclasses.is_dataclass(value) else {key: value}
    return flat
