"""From what a user calls a model to a pose network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from fastpose.errors import CheckpointError, ConfigError
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet
from fastpose.models import ModelMeta, PoseModel, create_trained, list_models, load_model, read_meta
from fastpose.models.registry import task_of

StrPath = str | os.PathLike[str]


def find_network(
    model: torch.nn.Module | StrPath, weights: StrPath | None = None, **options: Any
) -> PoseModel:
    """The network of a name and its weights, of a .safetensors file, of a run folder, or the one given.

    options: those of the model's factory, and `num_joints`, for a name only; None changes nothing. A run
    folder stands for its best.safetensors, as model and as weights. Raises ConfigError for a model that is
    not known or not for poses, CheckpointError for a file that cannot be used.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(model, str) and (weights is not None or _looks_like_name(model)):
        return _by_name(model, weights, options)
    if weights is not None or options:
        given = ", ".join((["weights"] if weights is not None else []) + sorted(options))
        raise ConfigError(f"{given}: only with the name of a model; a network or its file has its own")
    if isinstance(model, torch.nn.Module):
        return _pose(model)
    if not isinstance(model, (str, os.PathLike)):
        raise ConfigError(f"model: expected a name, file, run folder or network, got {type(model).__name__}")
    return _pose(load_model(_safetensors(Path(model))))


def usual_keypoints(num_joints: int) -> KeypointSet:
    """The known set of so many joints, for weights that do not say; CheckpointError if there is none."""
    for known in (COCO_17, MPII_16):
        if known.num_joints == num_joints:
            return known
    raise CheckpointError(
        f"the weights have {num_joints} joints and do not say which; "
        "create the model with keypoints=KeypointSet(...)"
    )


def _looks_like_name(model: str) -> bool:
    return not os.path.exists(model) and not Path(model).suffix and os.sep not in model


def _by_name(name: str, weights: StrPath | None, options: dict[str, Any]) -> PoseModel:
    if task_of(name) != ModelMeta.task:
        raise ConfigError(f"{name} is a {task_of(name)} network; for poses: {', '.join(list_models('pose'))}")
    if weights is None:
        raise ConfigError(f"{name}: an untrained network finds nothing; give weights=FILE")
    file = weights_file(Path(weights))
    keypoints: KeypointSet | None = options.get("keypoints")
    joints = options.pop("num_joints", keypoints.num_joints if keypoints else None)
    if joints is None:
        meta = read_meta(file)
        joints = meta.outputs if meta is not None else COCO_17.num_joints
    return _pose(create_trained(name, joints, file, **options))


def weights_file(path: Path) -> Path:
    """The file itself, or the best weights of a run folder; CheckpointError where it is not there."""
    file = path / "best.safetensors" if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise CheckpointError(f"{file}: no such file")
    return file


def _safetensors(path: Path) -> Path:
    file = weights_file(path)
    if file.suffix != ".safetensors":
        raise CheckpointError(
            f"{file}: does not say which network it is for; name it, as in "
            f"Predictor('hrnet_w32', weights={str(file)!r})"
        )
    return file


def _pose(network: torch.nn.Module) -> PoseModel:
    if isinstance(network, PoseModel):
        return network
    meta = getattr(network, "meta", None)
    what = f"{meta.model}, for {meta.task}" if meta is not None else type(network).__name__
    raise ConfigError(f"model: expected a pose network of fastpose.models, got {what}")
