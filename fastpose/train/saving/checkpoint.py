"""Training states on disk: complete or absent, checked by SHA-256, resumed bit for bit."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import IO, Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from fastpose.errors import CheckpointError, OutputError
from fastpose.files import flush, make_folder, remove_folder, sha256, write_digested
from fastpose.models import Network
from fastpose.train.saving.progress import Progress, list_states
from fastpose.train.saving.random_states import RandomStates
from fastpose.train.saving.retention import Retention
from fastpose.train.saving.snapshot import Extra, Snapshot, take_snapshot

__all__ = ["Progress", "damaged_file", "list_states", "load_state", "save_state", "write_state"]

logger = logging.getLogger(__name__)

MANIFEST, WEIGHTS, TRAINING = "manifest.json", "weights.safetensors", "training.pt"

_UNUSABLE = (
    *(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError),
    *(pickle.UnpicklingError, safetensors.SafetensorError),
)


def save_state(
    folder: Path,
    model: Network,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    progress: Progress,
    keep: int = 2,
    *,
    keep_every: int = 0,
    extra: Extra | None = None,
    random: RandomStates | None = None,
) -> Path:
    """Writes a state into `folder`, then deletes those that `Retention` does not keep; returns its folder.

    `random` has been collected by all processes; without it this process's generators are saved. OutputError
    where the state cannot be written; those before it are then as they were.
    """
    retention = Retention(keep, keep_every)
    target = write_state(
        folder, take_snapshot(model, optimizer, scaler, progress, extra=extra, random=random)
    )
    retention.apply(folder, progress.best_epoch)
    return target


def write_state(folder: Path, snapshot: Snapshot) -> Path:
    """The state as folder/state-EPOCH-SAMPLES: built under another name, flushed, then renamed into place."""
    make_folder(folder)
    target = folder / snapshot.name
    building = folder / f".{target.name}.{os.getpid()}.new.tmp"
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        _write_files(building, snapshot)
        remove_folder(target)
        os.rename(building, target)
        flush(folder)
    except OSError as error:
        raise OutputError(
            f"{target}: the training state cannot be saved: {error.strerror or error}; the states before it "
            "are intact"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _write_files(folder: Path, snapshot: Snapshot) -> None:
    snapshot.wait()
    training = snapshot.owned_training()
    digests = {
        WEIGHTS: write_digested(folder / WEIGHTS, lambda file: file.write(snapshot.weights_bytes)),
        TRAINING: write_digested(folder / TRAINING, lambda file: torch.save(training, cast(IO[bytes], file))),
    }
    manifest = json.dumps(digests, indent=1).encode()
    write_digested(folder / MANIFEST, lambda file: file.write(manifest))
    flush(folder)


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    *,
    extra: Extra | None = None,
    random: RandomStates | None = None,
) -> Progress | None:
    """Restores the newest intact state of `folder`; None where there is none at all.

    `random` is filled, for each process to `restore` its part; without it this process's generators are set.
    A damaged state is passed over with a warning; CheckpointError when all of them are damaged, and when the
    state is not of such a run, for example without one of `extra`.
    """
    states = list_states(folder)
    for path in reversed(states):
        damage = damaged_file(path)
        if damage is None:
            return _restore(path, model, optimizer, scaler, extra or {}, random)
        logger.warning("%s is damaged (%s does not match its SHA-256); trying an older state", path, damage)
    if states:
        raise CheckpointError(f"{folder}: all {len(states)} training states are damaged; start a new run")
    return None


def damaged_file(path: Path) -> str | None:
    """Name of the first file of a state whose bytes are not those that were written, or None."""
    try:
        digests = json.loads((path / MANIFEST).read_text())
        wrong = [name for name in (WEIGHTS, TRAINING) if sha256(path / name) != digests[name]]
    except (OSError, ValueError, KeyError, TypeError):
        return MANIFEST
    return wrong[0] if wrong else None


def _restore(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    extra: Extra,
    random: RandomStates | None,
) -> Progress:
    try:
        weights = safetensors.torch.load_file(path / WEIGHTS)
        training = torch.load(path / TRAINING, map_location="cpu", weights_only=True)
        progress = Progress(**training["progress"])
        _check_names(extra, training["extra"])
        model.load_state_dict(weights)
        _load_optimizer(optimizer, training["optimizer"])
        if scaler and training["scaler"]:
            scaler.load_state_dict(training["scaler"])
        for name, thing in extra.items():
            _load(thing, training["extra"].get(name))
        states = random or RandomStates()
        states.load_state_dict(training["random"])
        if random is None:
            states.restore()
    except _UNUSABLE as error:
        what = str(error).splitlines() or [type(error).__name__]
        more = f" (and {len(what) - 3} more lines)" if len(what) > 3 else ""
        raise CheckpointError(
            f"{path}: does not fit this run: {' '.join(line.strip() for line in what[:3])}{more}; "
            "resume with the settings that the run was started with"
        ) from error
    return progress


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The state only: rate, weight decay and other options are this run's, which torch would replace."""
    options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
        for parameter in group["params"] if group.get("momentum") else ():
            held = optimizer.state.get(parameter)
            if held and "momentum_buffer" not in held:  # RMSprop looks for it wherever there is a state
                held["momentum_buffer"] = torch.zeros_like(parameter)


def _check_names(wanted: Extra, saved: dict[str, Any]) -> None:
    missing = [name for name, thing in wanted.items() if thing is not None and name not in saved]
    if missing:
        raise CheckpointError(f"it holds no {', '.join(missing)}")
    unused = [name for name in saved if wanted.get(name) is None]
    if unused:
        logger.warning("of the training state %s is left out, which this run has not", ", ".join(unused))


def _load(thing: Any, state: Any) -> None:
    if isinstance(thing, Tensor):
        thing.copy_(state.reshape(thing.shape))
    elif thing is not None:
        thing.load_state_dict(state)
