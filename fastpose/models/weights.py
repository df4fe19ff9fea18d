"""Loading and saving a model's weights, strictly: what does not fit is listed, never skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.errors import CheckpointError
from fastpose.files import write_atomic
from fastpose.models.checkpoint_formats import official_names, read_checkpoint, weights_file
from fastpose.models.fit import all_models, check_fit, outputs_of, shortened
from fastpose.models.meta import Meta, StrPath
from fastpose.models.network import Network
from fastpose.models.registry import create_model, list_models
from fastpose.models.safetensors_file import read_safetensors_meta, to_safetensors

logger = logging.getLogger(__name__)


def load_weights(model: nn.Module, path: StrPath) -> tuple[str, ...]:
    """Loads a weights file into a model of `fastpose.models` (also inside DDP or torch.compile).

    Takes fastpose's safetensors, official `.pth` files and training checkpoints, mmpose checkpoints, and
    ImageNet backbones, of which the layers named in `model.backbone_layers` are loaded (hrnet
    lib/models/pose_hrnet.py, PRETRAINED_LAYERS). Returns the names that the file does not set: () for a whole
    model, the head's for a backbone. What the file says about input size, channel order and keypoints becomes
    `model.meta`. CheckpointError where file and model do not fit in every name and shape; then the model is
    unchanged.
    """
    target, path = network_of(model), Path(path)
    checkpoint = read_checkpoint(path)
    if checkpoint.meta is not None:
        _check_meta(path, checkpoint.meta, target.meta)
    own = target.state_dict()
    found, unused = target.adapt_names(checkpoint.tensors)
    expected = dict(own)
    head = [name for name in own if name.split(".")[0] not in target.backbone_layers]
    is_backbone = checkpoint.meta is None and bool(target.backbone_layers) and not found.keys() & set(head)
    if is_backbone:
        expected = {name: own[name] for name in own if name not in head}
        found = _backbone_part(target, found, expected)
    check_fit(path, target, found, expected)
    target.load_state_dict({**own, **found})
    conventions = target.conventions_of(unused)
    if checkpoint.meta is not None:
        unsaid = {
            name: value for name, value in conventions.items() if getattr(checkpoint.meta, name) is None
        }
        target.meta = checkpoint.meta.with_options(unsaid)
    else:
        _adopt(path, target, {**checkpoint.conventions, **conventions})
    _log_loaded(path, target, len(found), len(checkpoint.tensors) - len(found), head if is_backbone else [])
    if unused:
        logger.info(
            "%s: %d tensors that %s does not take left out: %s",
            path, len(unused), target.meta.model, shortened(unused),
        )  # fmt: skip
    return tuple(head) if is_backbone else ()


def _adopt(path: Path, model: Network, conventions: dict[str, Any]) -> None:
    """What the names in a file of others say of the meta; told where it is not the network's own."""
    known = {name: value for name, value in conventions.items() if name in model.meta.options}
    told = [f"{name}={value}" for name, value in known.items() if getattr(model.meta, name) != value]
    model.meta = model.meta.with_options(known)
    if told:
        logger.info("%s: by its names it goes with %s", path, ", ".join(told))


def load_model(path: StrPath) -> Network:
    """Builds the model that a file of `save_weights` describes and loads the file into it."""
    meta = read_meta(path)
    if meta is None:
        raise CheckpointError(
            f"{path}: does not say which model it is for; use create_model(name, outputs, weights=...)"
        )
    if meta.model not in list_models():
        raise CheckpointError(f"{path}: is for {meta.model!r}, which is not known here; {all_models()}")
    return create_model(meta.model, meta.outputs, weights=path)


def create_trained(name: str, outputs: int, weights: StrPath, **options: Any) -> Network:
    """`create_model` for evaluation: CheckpointError where the file sets only a part, as a backbone does."""
    given = {option: value for option, value in options.items() if value is not None}
    model = create_model(name, outputs, **{**layer_options(name, weights), **given})
    unset = load_weights(model, weights)
    if unset:
        raise CheckpointError(
            f"{weights}: a backbone alone, which leaves {shortened(list(unset), 4)} untrained; start a "
            "training from it with model.weights, and evaluate what comes out"
        )
    model.meta = model.meta.with_options(options)
    return model


def create_fitting(name: str, weights: StrPath, **options: Any) -> Network:
    """`create_trained` with the number of joints or classes that the file has."""
    return create_trained(name, _outputs_in(weights, name, options), weights, **options)


def _outputs_in(weights: StrPath, name: str, options: Mapping[str, Any]) -> int:
    """What a file says or shows of the outputs of network `name`, else the network's own number."""
    saved = read_meta(weights)
    if saved is not None and saved.model == name:
        return saved.outputs
    with torch.device("meta"):
        model = create_model(name)
        given = {key: options[key] for key in model.meta.layer_options if options.get(key) is not None}
        model = create_model(name, **given) if given else model
    found, _ = model.adapt_names(read_checkpoint(Path(weights)).tensors)
    return outputs_of(model, found, model.state_dict()) or model.meta.outputs


def read_meta(path: StrPath) -> Meta | None:
    """What a file of `save_weights` says about its model, from its header alone; None for any other file."""
    path = weights_file(Path(path))
    return read_safetensors_meta(path) if path.suffix == ".safetensors" else None


def layer_options(name: str, weights: StrPath | None) -> dict[str, Any]:
    """What a file of `save_weights` for network `name` says of the options its layers depend on, else {}."""
    saved = None if weights is None else read_meta(weights)
    if saved is None or saved.model != name:
        return {}
    return {option: getattr(saved, option) for option in saved.layer_options}


def save_weights(model: nn.Module, path: StrPath, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Writes the model's weights, or `state_dict` in their place (an average of them), as safetensors.

    `model.meta` travels along; a kill at any moment leaves the old file or the new one. OutputError if the
    file cannot be written, CheckpointError if `path` is not named `.safetensors` or `state_dict` does not fit
    the model.
    """
    target, path = network_of(model), Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: weights are saved as safetensors; name the file {path.stem}.safetensors"
        )
    own = target.state_dict()
    tensors = own if state_dict is None else official_names(dict(state_dict))
    check_fit(Path("state_dict"), target, tensors, own)
    data = to_safetensors(tensors, target.meta)
    write_atomic(path, lambda temporary: temporary.write_bytes(data))


def network_of(model: nn.Module) -> Network:
    """The network in what DDP or torch.compile has wrapped; TypeError for one that is not ours."""
    inner = model
    while isinstance(wrapped := getattr(inner, "module", getattr(inner, "_orig_mod", None)), nn.Module):
        inner = wrapped
    if not isinstance(inner, Network):
        raise TypeError(f"a model of fastpose.models is needed, got {type(inner).__name__}")
    return inner


def _check_meta(path: Path, file: Meta, model: Meta) -> None:
    if (file.model, file.outputs) != (model.model, model.outputs):
        raise CheckpointError(
            f"{path}: holds {file.model} with {file.counted}, not {model.model} with {model.counted}; "
            f"use create_model({file.model!r}, {file.outputs}, weights=...)"
        )
    modules = [getattr(meta, "num_modules", 1) for meta in (file, model)]
    if modules[0] != modules[1]:
        raise CheckpointError(
            f"{path}: holds {file.model} with num_modules={modules[0]}, not {modules[1]}; "
            f"leave it out, or give num_modules={modules[0]}"
        )


def _backbone_part(
    model: Network, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The part of a classification network that the model shares; surplus names in it stay, to be told."""
    return {
        name: tensor
        for name, tensor in found.items()
        if name in expected
        or (name.split(".")[0] in model.backbone_layers and not name.startswith(model.backbone_extra))
    }


def _log_loaded(path: Path, model: Network, loaded: int, left_out: int, head: Iterable[str]) -> None:
    name = model.meta.model
    if head:
        parts = ", ".join(sorted({key.split(".")[0] for key in head}))
        logger.info(
            "%s: a backbone, %d tensors loaded into %s, %d left out; fresh stay %s",
            path, loaded, name, left_out, parts,
        )  # fmt: skip
    else:
        logger.info("%s: %d tensors loaded into %s", path, loaded, name)
