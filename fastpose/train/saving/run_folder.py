"""A resume only with settings and data that keep a run's figures comparable."""

from __future__ import annotations

import dataclasses
import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastpose.data.crop_cache import read_manifest
from fastpose.errors import CheckpointError, ConfigError
from fastpose.files import write_text
from fastpose.train.config import Config
from fastpose.train.config_io import load_config
from fastpose.train.saving.checkpoint import list_states

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CACHE = "crop_cache.sha256"
DATA = "data.sha256"
FREE = (  # what may differ when a run goes on: places, speed, and what is said about it
    "name", "data.root", "data.train_annotations", "data.train_images", "data.val_annotations",
    "data.val_images", "data.workers", "data.cache_mb", "data.on_bad", "model.weights", "model.backbone",
    "model.init", "train.epochs", "train.lr", "train.milestones", "train.gamma", "train.schedule",
    "train.compile", "train.save_steps", "train.keep", "train.clip_grad", "train.weight_decay",
    "train.warmup_steps", "train.momentum", "train.backbone_lr", "train.poly_power", "train.amp",
    "train.channels_last", "train.graph", "train.max_bad_steps", "train.keep_every", "train.async_save",
    "train.on_save_error", "train.bucket_mb", "data.warp", "run.patience", "val.every", "val.batch_size",
    "val.amp", "run.dir", "run.name", "run.device", "run.threads", "run.pictures_every", "run.tensorboard",
    "run.deterministic",
)  # fmt: skip


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
    free = {*FREE, "data.crop_cache"} if _same_cache(before, now, folder) else {*FREE}
    if None in (before.get("train.backbone_lr"), now["train.backbone_lr"]):
        free.discard("train.backbone_lr")  # with and without it the optimiser has other groups
    fixed = [f"{key}={now[key]} (the run has {before.get(key)})" for key in changed if key not in free]
    if fixed:
        raise ConfigError(
            f"{folder}: cannot be resumed with {', '.join(fixed)}; leave these as they were, or start "
            "a new run"
        )
    for key in changed:
        logger.info("%s: %s was %s and is now %s", folder, key, before.get(key), now[key])


def check_same_data(folder: Path, digests: dict[str, str]) -> None:
    """ConfigError where the run in `folder` was begun with other annotations.

    digests: of the tables 'training' and 'validation', as `fastpose.data.digest.table_digest`.
    """
    known = folder / DATA
    if not list_states(folder / CHECKPOINTS) or not known.is_file():
        return
    before = dict(line.split() for line in known.read_text(encoding="utf-8").splitlines())
    changed = [part for part, digest in digests.items() if before.get(part, digest) != digest]
    if changed:
        raise ConfigError(
            f"{folder}: was begun with other {' and '.join(changed)} annotations (or another part of them); "
            "give those, or start a new run"
        )


def note_data(folder: Path, digests: dict[str, str]) -> None:
    """Writes down which annotations the run reads, so that their files may move."""
    write_text(folder / DATA, "".join(f"{part} {digest}\n" for part, digest in digests.items()))


def note_cache(config: Config, folder: Path) -> None:
    """Writes down which crop cache the run reads, so that the cache may move."""
    if config.data.crop_cache is not None:
        write_text(folder / CACHE, _digest(config.data.crop_cache))


def _same_cache(before: dict[str, Any], now: dict[str, Any], folder: Path) -> bool:
    """Whether both have a crop cache, with the same bytes; ConfigError where those of one place changed."""
    was, path, known = before.get("data.crop_cache"), now["data.crop_cache"], folder / CACHE
    if was is None or path is None or not known.is_file():
        return False
    if _digest(path) == known.read_text(encoding="utf-8").strip():
        return True
    raise ConfigError(
        f"data.crop_cache={path}: not the cache that {folder} was begun with (there {was}); give that one, "
        "or start a new run"
    )


def _digest(cache: str) -> str:
    """SHA-256 over how a cache was made and the digests of its files; DataError where it is damaged."""
    manifest = read_manifest(Path(cache))
    parts = [manifest["recipe"], manifest.get("index_sha256"), manifest.get("shards")]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _flat(group: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(group):
        value, key = getattr(group, field.name), f"{prefix}{field.name}"
        flat |= _flat(value, f"{key}.") if dataclasses.is_dataclass(value) else {key: value}
    return flat
