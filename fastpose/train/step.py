"""One optimisation step: bytes and coordinates in, updated weights and running sums out."""

from __future__ import annotations

import torch
from torch import nn

from fastpose.device import autocast
from fastpose.metrics.pck import heatmap_accuracy
from fastpose.nn.normalize import normalize_crops
from fastpose.ops import gaussian_heatmaps
from fastpose.reference.loss import heatmap_mse, heatmap_ohkm
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
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.sigma, self.dtype, self.device = sigma, dtype, device
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
        target, in_map = gaussian_heatmaps(
            joints,
            (weight > 0).to(torch.float32),
            heatmap_size=(prediction.shape[3], prediction.shape[2]),
            input_size=(crop.shape[2], crop.shape[1]),
            sigma=self.sigma,
        )
        loss = self._loss(prediction, target, in_map * weight)
        self.optimizer.zero_grad(set_to_none=True)
        set_learning_rate(self.optimizer, rate)
        self._update(loss)
        self._count(loss.detach(), prediction.detach(), target)

    def _loss(self, prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if self.config.loss == "ohkm":
            return heatmap_ohkm(prediction, target, weight, topk=self.config.ohkm_topk)
        return heatmap_mse(prediction, target, weight)

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
    def _count(self, loss: torch.Tensor, prediction: torch.Tensor, target: torch.Tensor) -> None:
        _, mean, count = heatmap_accuracy(prediction, target)
        size = torch.full_like(mean, len(prediction))
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
