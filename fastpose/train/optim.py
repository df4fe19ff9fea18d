"""Optimisers and learning-rate schedules of the published experiments."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastpose.train.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters, in one fused pass over them on either device."""
    cls = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return cls(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def learning_rate(config: TrainConfig, epoch: int, batch: int, steps_per_epoch: int) -> float:
    """The rate of one step, a pure function of its place in the run, so that a resumed run cannot differ.

    `step`: multiplied by gamma once `milestones` epochs are complete, which is what the official yaml
    files intend (the official loop calls the scheduler first and drops one epoch early on torch >= 1.1).
    `cosine`: half a cosine from lr to 0 over the run. Either is scaled up linearly over `warmup_steps`.
    """
    step = epoch * steps_per_epoch + batch
    rate = config.lr
    if config.schedule == "step":
        rate *= config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    else:
        rate *= 0.5 * (1.0 + math.cos(math.pi * step / max(1, config.epochs * steps_per_epoch)))
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of all parameters; one that is a tensor keeps its memory, which a captured graph reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
