"""One optimisation step: bytes and coordinates in, updated weights and running sums out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastpose.device import autocast
from fastpose.metrics.pck import HeatmapAccuracy, joint_accuracy
from fastpose.nn.normalize import normalize_crops
from fastpose.ops import heatmap_loss
from fastpose.train.config import TrainConfig
from fastpose.train.optim import set_learning_rate

SUMS = ("loss", "samples", "correct", "joints")


class TrainStep:
    """Forward, loss, backward and update of one batch on one device.

    `sums` (float64, on the device, see SUMS) grow with every step and are read when somebody asks, so that
    a step never waits for the device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        *,
        sigma: float,
        dtype: torch.dtype | None,
        device: torch.device,
        unbiased: bool = False,
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.sigma, self.unbiased, self.dtype, self.device = sigma, unbiased, dtype, device
        self.forward = torch.compile(model) if config.compile else model
        self.scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None
        self.sums = torch.zeros(len(SUMS), dtype=torch.float64, device=device)

    def __call__(self, batch: dict[str, torch.Tensor], rate: float) -> None:
        """batch: crop (B, H, W, 3) uint8, joints (B, K, 2) input px, weight (B, K); rate: learning rate."""
        crop, joints, weight = (
            batch[name].to(self.device, non_blocking=True) for name in ("crop", "joints", "weight")
        )
        with autocast(self.dtype, self.device):
            prediction = self.forward(normalize_crops(crop))
        target = self._target(crop)
        topk = self.config.ohkm_topk if self.config.loss == "ohkm" else None
        loss = heatmap_loss(prediction, joints, weight, topk=topk, **target)
        self.optimizer.zero_grad(set_to_none=True)
        set_learning_rate(self.optimizer, rate)
        self._update(loss)
        accuracy = joint_accuracy(prediction.detach(), joints, (weight > 0).to(torch.float32), **target)
        self._count(loss.detach(), accuracy, len(crop))

    def _target(self, crop: torch.Tensor) -> dict[str, Any]:
        """What the target is drawn with."""
        input_size = (crop.shape[2], crop.shape[1])
        return {"input_size": input_size, "sigma": self.sigma, "unbiased": self.unbiased}

    def _update(self, loss: torch.Tensor) -> None:
        if self.scaler is None:
            loss.backward()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
        if self.config.clip_grad > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    @torch.no_grad()
    def _count(self, loss: torch.Tensor, accuracy: HeatmapAccuracy, samples: int) -> None:
        _, mean, count = accuracy
        size = torch.full_like(mean, samples)
        self.sums += torch.stack([loss * size, size, mean * count, count.to(mean.dtype)]).to(torch.float64)


def replace_unusable(batch: dict[str, torch.Tensor]) -> int:
    """Fills the places of unreadable samples with the batch's readable ones, in order; returns how many.

    The batch keeps its size, and no blank picture reaches the BatchNorm statistics. A batch without any
    readable sample is left alone, for the caller to pass over.
    """
    usable = batch["usable"]
    bad = torch.nonzero(~usable).flatten()
    good = torch.nonzero(usable).flatten()
    if len(bad) and len(good):
        source = good[torch.arange(len(bad)) % len(good)]
        for tensor in batch.values():
            tensor[bad] = tensor[source]
    return len(bad)
