"""Optimisers and learning-rate schedules of the published experiments."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.train.config import TrainConfig

FACTOR = "rate_factor"
"""Field of a parameter group: its rate over that of the step."""


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser of a configuration over all parameters that are trained, in few passes over them.

    With `backbone_lr` the parameters in the network's `backbone_layers` are a group of their own, whose rate
    is always `backbone_lr / lr` of the others'.
    """
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    groups = _groups(model, config)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, momentum=config.momentum, foreach=True, **options)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, fused=True, **options)
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return cls(groups, fused=True, **options)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.backbone_lr is None:
        return [{"params": [p for _, p in trained]}]
    layers = getattr(model, "backbone_layers", ())
    backbone = [p for name, p in trained if name.split(".")[0] in layers]
    others = [p for name, p in trained if name.split(".")[0] not in layers]
    factor = config.backbone_lr / config.lr
    groups = [{"params": others, FACTOR: 1.0}, {"params": backbone, FACTOR: factor}]
    return [group for group in groups if group["params"]]


def learning_rate(config: TrainConfig, epoch: int, batch: int, steps_per_epoch: int) -> float:
    """The rate of one step, a pure function of its place in the run, so that a resumed run cannot differ.

    `step`: multiplied by gamma once `milestones` epochs are complete, which is what the official yaml
    files intend (the official loop calls the scheduler first and drops one epoch early on torch >= 1.1).
    `cosine`: half a cosine from lr to 0 over the run. `poly`: lr (1 - progress)^poly_power. Each is scaled up
    linearly over `warmup_steps`.
    """
    step = epoch * steps_per_epoch + batch
    rate = config.lr
    if config.schedule == "step":
        rate *= config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    else:
        progress = min(step / max(1, config.epochs * steps_per_epoch), 1.0)
        cosine = config.schedule == "cosine"
        rate *= (
            0.5 * (1.0 + math.cos(math.pi * progress)) if cosine else (1.0 - progress) ** config.poly_power
        )
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of all parameters, times their group's factor, if it has one.

    A rate that is a tensor keeps its memory, which a captured graph reads.
    """
    for group in optimizer.param_groups:
        own = rate * group.get(FACTOR, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
