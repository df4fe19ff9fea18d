"""What a training step makes of a segmentation network's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose.errors import ConfigError
from fastpose.nn.normalize import MEAN, STD, Triple
from fastpose.train.objectives import Batch, CropObjective
from fastpose.train.segmentation_losses import (
    UNCOUNTED,
    check_loss,
    counted_labels,
    full_size,
    segmentation_loss,
)


class SegmentationObjective(CropObjective):
    """`segmentation_loss` from labels (B, H, W) uint8. The score: the share of counted pixels that are right.

    Args:
        loss: 'ce', 'ohem', 'ce_dice' or 'ce_dice_seed'.
        weight: one a class, at least 0 and not all 0, or None for 1.
        align_corners: the network's (`model.meta`).
        threshold, min_kept: of 'ohem'.
        batch_size: samples that `min_kept` is meant for: fewer, as in one of several processes, keep their
            share. None: `min_kept` of however many.

    Raises:
        ConfigError: an argument cannot be.
    """

    inputs: tuple[str, ...] = ("crop", "label")
    named = "pixel accuracy"

    def __init__(
        self,
        *,
        loss: str = "ce",
        weight: Sequence[float] | None = None,
        align_corners: bool = False,
        threshold: float = 0.9,
        min_kept: int = 131072,
        batch_size: int | None = None,
        mean: Triple = MEAN,
        std: Triple = STD,
    ) -> None:
        super().__init__(mean=mean, std=std)
        check_loss(loss, threshold, min_kept)
        self.options: dict[str, Any] = {
            "name": loss,
            "align_corners": align_corners,
            "threshold": threshold,
        }
        self.min_kept, self.batch_size = min_kept, batch_size
        self.weight = None if weight is None else _class_weights(weight)

    def loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        if self.weight is not None:  # copied once, before a step is captured in a graph
            self.weight = self.weight.to(prediction.device)
        labels = batch["label"]
        share = 1.0 if self.batch_size is None else min(1.0, len(labels) / self.batch_size)
        kept = math.ceil(self.min_kept * share)
        return segmentation_loss(prediction, labels, weight=self.weight, min_kept=kept, **self.options)

    @torch.no_grad()
    def score(self, prediction: Tensor, batch: Batch) -> Tensor:
        found = torch.zeros(2, dtype=torch.int64, device=prediction.device)
        # One picture at a time: the enlarged logits of a batch are hundreds of megabytes.
        for logits, labels in zip(prediction.split(1), batch["label"].split(1), strict=True):
            scores = full_size(logits, labels, self.options["align_corners"])
            target = counted_labels(labels, scores.shape[1])
            right = (scores.argmax(1) == target).sum()
            found += torch.stack([right, (target != UNCOUNTED).sum()])
        right, counted = found.double().unbind()
        return torch.stack([right / counted.clamp(min=1), counted])


def _class_weights(weight: Sequence[float]) -> Tensor:
    values = [float(value) for value in weight]
    if not values or not all(math.isfinite(v) and v >= 0 for v in values) or not any(values):
        raise ConfigError(f"class weights must be numbers from 0 up, not all 0, got {values}")
    return torch.tensor(values, dtype=torch.float32)
