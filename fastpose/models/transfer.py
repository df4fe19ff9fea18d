"""A network's backbone from the weights of another network: to other joints, another head, another task."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from torch import Tensor, nn

from fastpose.errors import CheckpointError, ConfigError
from fastpose.models.checkpoint_formats import read_checkpoint
from fastpose.models.fit import COUNTER
from fastpose.models.meta import StrPath
from fastpose.models.network import Network
from fastpose.models.prtr import BODY, OLD_BODY
from fastpose.models.weights import network_of

logger = logging.getLogger(__name__)

LEAST = 0.5
"""Of the backbone's tensors that a file must fill, lest it is one of another family."""


def load_backbone(model: nn.Module, path: StrPath) -> tuple[str, ...]:
    """Fills the backbone of a model (`backbone_layers`) with what a file of weights has of it.

    Taken is every tensor of a backbone layer that the file holds under the same name and in the same shape;
    all else stays as it is, also the head. So a pose network starts from one for other joints, PRTR from an
    HRNet that knows poses and the other way round, and a pose network from an HRNetV2 for segmentation. Files
    of `save_weights` also set the channel order and the normalisation that their features expect, those of
    mmpose the channel order.

    Args:
        model: of `fastpose.models`, also inside DDP or torch.compile.
        path: any file that `load_weights` reads.

    Returns:
        The names of the backbone's tensors that the file did not fill, without BatchNorm's counters.

    Raises:
        ConfigError: the model has no backbone.
        CheckpointError: the file cannot be read, or fills less than half of the backbone's tensors; then
            the model is unchanged.
    """
    target, path = network_of(model), Path(path)
    if not target.backbone_layers:
        raise ConfigError(f"{target.meta.model} has no backbone to fill; load whole weights of it")
    checkpoint, own = read_checkpoint(path), _backbone(target)
    found = _shared(target, checkpoint.tensors, own)
    share = len(found) / len(own)
    if share < LEAST:
        raise CheckpointError(
            f"{path}: fills {share:.0%} of the tensors in the backbone of {target.meta.model}, too little to "
            "start from; take weights of a network with the same backbone"
        )
    target.load_state_dict(found, strict=False)
    features = checkpoint.conventions
    if checkpoint.meta is not None:
        features = {name: getattr(checkpoint.meta, name) for name in ("channel_order", "mean", "std")}
    target.meta = target.meta.with_options(features)
    left = tuple(name for name in own if name not in found)
    _log_filled(path, target.meta.model, len(own), left)
    return left


def _log_filled(path: Path, model: str, count: int, left: tuple[str, ...]) -> None:
    fresh = f"; fresh stay {', '.join(_parts(left))}" if left else ""
    filled = count - len(left)
    logger.info("%s: fills %d of %d tensors in the backbone of %s%s", path, filled, count, model, fresh)


def _shared(model: Network, tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a file that the backbone `own` of the model has in the same shape, under the model's names."""
    given, _ = model.adapt_names(_without_head(tensors))
    return {
        name: given[name]
        for name, tensor in own.items()
        if name in given and given[name].shape == tensor.shape
    }


def _without_head(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The body of a network that keeps it under a name of its own, as PRTR does, without that name; the
    tensors of others as they are."""
    bodies = {
        name.removeprefix(prefix): tensor
        for prefix in (BODY, OLD_BODY)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    return bodies or tensors


def _backbone(model: Network) -> dict[str, Tensor]:
    """Its tensors by name, without BatchNorm's counters."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.split(".")[0] in model.backbone_layers and not name.endswith(COUNTER)
    }


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of a network that hold these tensors, without numbers in their names."""
    return sorted({".".join(takewhile(str.isidentifier, _within(name))) for name in names})


def _within(name: str) -> list[str]:
    """Of backbone.0.body.layer1.0.conv1.weight: layer1, 0, conv1."""
    return name.rpartition("body.")[2].split(".")[:-1]
