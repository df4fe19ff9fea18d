"""Loading and saving a model's weights, strictly: what does not fit is listed, never skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastpose.errors import CheckpointError
from fastpose.files import write_atomic
from fastpose.models.checkpoint_formats import official_names, read_checkpoint, weights_file
from fastpose.models.meta import Meta, Network, StrPath
from fastpose.models.registry import create_model, list_models
from fastpose.models.safetensors_file import read_safetensors_meta, to_safetensors

logger = logging.getLogger(__name__)

LISTED = 10
"""Names an error lists of each kind."""

COUNTER = "num_batches_tracked"
"""BatchNorm's step counter: files of PyTorch before 0.4.1 have none, and nothing here depends on it."""


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
    _check_fit(path, target, found, expected)
    target.load_state_dict({**own, **found})
    if checkpoint.meta is not None:
        target.meta = checkpoint.meta
    _log_loaded(path, target, len(found), len(checkpoint.tensors) - len(found), head if is_backbone else [])
    if unused:
        logger.info(
            "%s: %d tensors that %s never uses left out: %s",
            path, len(unused), target.meta.model, _shortened(unused),
        )  # fmt: skip
    return tuple(head) if is_backbone else ()


def load_model(path: StrPath) -> Network:
    """Builds the model that a file of `save_weights` describes and loads the file into it."""
    meta = read_meta(path)
    if meta is None:
        raise CheckpointError(
            f"{path}: does not say which model it is for; use create_model(name, outputs, weights=...)"
        )
    if meta.model not in list_models():
        raise CheckpointError(f"{path}: is for {meta.model!r}; known models: {', '.join(list_models())}")
    return create_model(meta.model, meta.outputs, weights=path)


def create_trained(name: str, outputs: int, weights: StrPath, **options: Any) -> Network:
    """`create_model` for evaluation: CheckpointError where the file sets only a part, as a backbone does."""
    given = {option: value for option, value in options.items() if value is not None}
    model = create_model(name, outputs, **{**layer_options(name, weights), **given})
    unset = load_weights(model, weights)
    if unset:
        raise CheckpointError(
            f"{weights}: an ImageNet backbone, which leaves {', '.join(unset)} untrained; start a training "
            "from it with model.weights, and evaluate what comes out"
        )
    model.meta = model.meta.with_options(options)
    return model


def create_fitting(name: str, weights: StrPath, **options: Any) -> Network:
    """`create_trained` with the number of joints or classes that the file has."""
    model = create_model(name)
    found, _ = model.adapt_names(read_checkpoint(Path(weights)).tensors)
    outputs = _outputs_of(model, found, model.state_dict())
    return create_trained(name, outputs or model.meta.outputs, weights, **options)


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
    _check_fit(Path("state_dict"), target, tensors, own)
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


def _check_fit(
    path: Path, model: Network, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """CheckpointError with every kind of difference between `found` and `expected`, joint counts named."""
    missing = [name for name in expected if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in expected]
    reshaped = [name for name in expected if name in found and _differs(found[name], expected[name])]
    if not (missing or unexpected or reshaped):
        return
    shapes = [f"{name} {_kind(found[name])} instead of {_kind(expected[name])}" for name in reshaped]
    report = [f"{path}: does not fit {model.meta.model} with {model.meta.counted}"]
    report += _listing("missing", missing) + _listing("unexpected", unexpected)
    report += _listing("of another shape or type", shapes)
    outputs = None if missing or unexpected else _outputs_of(model, found, expected)
    if outputs is not None:
        name = model.meta.outputs_name
        report.append(f"  only {name} differs: create the model with {name}={outputs}")
    else:
        report.append(f"  choose the model the file was made for; known: {', '.join(list_models())}")
    raise CheckpointError("\n".join(report))


def _outputs_of(model: Network, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """The number of outputs with which `model` would take `found`; None where that is not what differs.

    Every size that differs must be that of the outputs, or one more (a class for none of them), by the same.
    """
    changes = set()
    for name, tensor in expected.items():
        if name not in found or found[name].shape == tensor.shape:
            continue
        if found[name].ndim != tensor.ndim:
            return None
        pairs = zip(tensor.shape, found[name].shape, strict=True)
        changes |= {(own - model.meta.outputs, other - own) for own, other in pairs if own != other}
    if len(changes) != 1:
        return None
    (extra, change), outputs = changes.pop(), model.meta.outputs
    return outputs + change if extra in (0, 1) and outputs + change > 0 else None


def _differs(a: Tensor, b: Tensor) -> bool:
    """Floats of any width are taken for each other, whole numbers for floats are not."""
    return a.shape != b.shape or a.is_floating_point() != b.is_floating_point()


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}"


def _listing(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"  {kind} ({len(names)}): {_shortened(names)}"]


def _shortened(names: list[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _log_loaded(path: Path, model: Network, loaded: int, left_out: int, head: Iterable[str]) -> None:
    name = model.meta.model
    if head:
        parts = ", ".join(sorted({key.split(".")[0] for key in head}))
        logger.info(
            "%s: ImageNet backbone, %d tensors loaded into %s, %d left out; %s keeps its initialisation",
            path, loaded, name, left_out, parts,
        )  # fmt: skip
    else:
        logger.info("%s: %d tensors loaded into %s", path, loaded, name)
