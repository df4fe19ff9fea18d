"""What a network of bins is trained towards (SimCC, arXiv:2107.03332)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose.nn.normalize import MEAN, STD, Triple
from fastpose.reference.simcc import decode_simcc, simcc_loss
from fastpose.train.objectives import Batch, CropObjective, input_size_of

CLOSE = 0.05
"""Of the crop: how far a joint may be off in width and in height and count as right in the score."""


class SimCCObjective(CropObjective):
    """`fastpose.reference.simcc.simcc_loss` from joints (B, K, 2) in input pixels and weight (B, K).

    The score is the share of joints of weight above 0 whose highest bins lie within 0.05 of the crop's width
    and height of the joint, together as a distance (mmpose's simcc_pck_accuracy).

    Args:
        sigma, smoothing: as `simcc_targets`.
    """

    inputs: tuple[str, ...] = ("crop", "joints", "weight")

    def __init__(
        self,
        *,
        sigma: tuple[float, float] | None = (6.0, 6.0),
        smoothing: float = 0.0,
        mean: Triple = MEAN,
        std: Triple = STD,
    ) -> None:
        super().__init__(mean=mean, std=std)
        self.target: dict[str, Any] = {"sigma": sigma, "smoothing": smoothing}

    def loss(self, prediction: Any, batch: Batch) -> Tensor:
        size = input_size_of(batch)
        return simcc_loss(prediction, batch["joints"], batch["weight"], input_size=size, **self.target)

    @torch.no_grad()
    def score(self, prediction: Any, batch: Batch) -> Tensor:
        width, height = input_size_of(batch)
        found = decode_simcc(prediction, input_size=(width, height))
        x, y = (found.keypoints - batch["joints"]).double().unbind(-1)
        visible = batch["weight"] > 0
        right = visible & (torch.hypot(x / width, y / height) < CLOSE)
        counted = visible.sum()
        return torch.stack([right.sum() / counted.clamp(min=1), counted]).double()
