"""Training states on disk: complete or absent, checked by SHA-256, resumed bit for bit."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from fastpose.errors import CheckpointError, OutputError
from fastpose.files import flush, make_folder, sha256, write_text
from fastpose.models import save_weights

logger = logging.getLogger(__name__)

MANIFEST, WEIGHTS, TRAINING = "manifest.json", "weights.safetensors", "training.pt"

_UNUSABLE = (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, safetensors.SafetensorError)


@dataclass
class Progress:
    """Where a run stands: the next batch to do, the sums of the epoch under way, and what is done."""

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None


def save_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    progress: Progress,
    keep: int = 2,
) -> Path:
    """Writes `folder`/state-EEEEE-BBBBBB: built under another name, flushed, then renamed into place."""
    make_folder(folder)
    target = folder / f"state-{progress.epoch:05d}-{progress.batch:07d}"
    building = folder / f".{target.name}.{os.getpid()}.tmp"
    training = {
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "progress": asdict(progress),
        "rng": _rng_state(),
    }
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        save_weights(model, building / WEIGHTS)
        torch.save(training, building / TRAINING)
        digests = {name: sha256(building / name) for name in (WEIGHTS, TRAINING)}
        (building / MANIFEST).write_text(json.dumps(digests, indent=1))
        for name in (*digests, MANIFEST):
            flush(building / name)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(building, target)
        flush(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(building, ignore_errors=True)
        raise OutputError(f"{target}: the training state cannot be saved: {error}") from error
    for old in list_states(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def list_states(folder: Path) -> list[Path]:
    """Training states, oldest first; they come into being by a rename, so each was complete once."""
    return sorted(folder.glob("state-*"))


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
) -> Progress | None:
    """Restores the newest intact state of `folder`; None where there is none at all.

    A damaged state is passed over with a warning; CheckpointError when all of them are damaged.
    """
    states = list_states(folder)
    for path in reversed(states):
        damage = damaged_file(path)
        if damage is None:
            return _restore(path, model, optimizer, scaler)
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
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None
) -> Progress:
    try:
        weights = safetensors.torch.load_file(path / WEIGHTS)
        training = torch.load(path / TRAINING, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
        optimizer.load_state_dict(training["optimizer"])
        if scaler and training["scaler"]:
            scaler.load_state_dict(training["scaler"])
    except _UNUSABLE as error:
        what = str(error).splitlines()
        more = f" (and {len(what) - 3} more lines)" if len(what) > 3 else ""
        raise CheckpointError(
            f"{path}: does not fit this run: {' '.join(line.strip() for line in what[:3])}{more}; "
            "resume with the settings that the run was started with"
        ) from error
    _set_rng_state(training["rng"])
    return Progress(**training["progress"])


def _rng_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_named(folder: Path, name: str, model: nn.Module, note: dict[str, Any]) -> None:
    """`name`.safetensors, and `name`.json with its SHA-256 and `note` (epoch, score)."""
    weights = folder / f"{name}.safetensors"
    save_weights(model, weights)
    write_text(folder / f"{name}.json", json.dumps({**note, "sha256": sha256(weights)}, indent=1))
