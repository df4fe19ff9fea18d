"""What a step makes of a network's output: a loss, and how much of it is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from fastpose.metrics.pck import joint_accuracy
from fastpose.nn.normalize import MEAN, STD, Triple, normalize_crops
from fastpose.ops import heatmap_loss
from fastpose.reference.udp import strided_joints

Batch = Mapping[str, Tensor]


class Objective(Protocol):
    """`inputs` are the fields of a batch that the step takes to the device; nothing here reads back from it.

    `named` says what the score is, for logs.
    """

    inputs: tuple[str, ...]
    named: str

    def network_input(self, batch: Batch) -> Tensor:
        """What the network is called with."""

    def loss(self, prediction: Any, batch: Batch) -> Tensor:
        """Scalar with a graph."""

    def score(self, prediction: Any, batch: Batch) -> Tensor:
        """(2,) float64, without a graph: the share that is right, and of how many."""


class CropObjective:
    """An objective on crops (B, H, W, 3) uint8, normalised with the network's own statistics."""

    inputs: tuple[str, ...] = ("crop",)
    named = "accuracy"

    def __init__(self, *, mean: Triple = MEAN, std: Triple = STD) -> None:
        self.mean, self.std = mean, std

    def network_input(self, batch: Batch) -> Tensor:
        return normalize_crops(batch["crop"], self.mean, self.std)


class HeatmapObjective(CropObjective):
    """`fastpose.ops.heatmap_loss` from joints (B, K, 2) in input pixels and weight (B, K).

    The score is the official accuracy: PCK of the peaks at 0.5 of a tenth of the map.

    Args:
        sigma, unbiased, topk: as `heatmap_loss`.
        codec: 'msra', or 'udp', whose targets are unbiased and lie in its own unit.
        linear_weight: mean(weight (p - g)²), mmpose's KeypointMSELoss, instead of the official
            0.5 mean(weight² (p - g)²).
        heatmaps: reads the network's output as its heatmaps, the final ones last (`PoseModel.heatmaps`);
            their losses are summed.
    """

    inputs: tuple[str, ...] = ("crop", "joints", "weight")

    def __init__(
        self,
        *,
        sigma: float,
        unbiased: bool = False,
        topk: int | None = None,
        codec: str = "msra",
        linear_weight: bool = False,
        heatmaps: Callable[[Any], list[Tensor]] = lambda output: [output],
        mean: Triple = MEAN,
        std: Triple = STD,
    ) -> None:
        super().__init__(mean=mean, std=std)
        self.target: dict[str, Any] = {"sigma": sigma, "unbiased": unbiased or codec == "udp"}
        self.topk, self.heatmaps = topk, heatmaps
        self.codec, self.linear_weight = codec, linear_weight

    def loss(self, prediction: Any, batch: Batch) -> Tensor:
        maps = self.heatmaps(prediction)
        outputs = maps[0] if len(maps) == 1 else maps
        weight = batch["weight"]
        return heatmap_loss(
            outputs,
            self._joints(batch, maps[-1]),
            (2.0 * weight).sqrt() if self.linear_weight else weight,
            topk=self.topk,
            input_size=input_size_of(batch),
            **self.target,
        )

    @torch.no_grad()
    def score(self, prediction: Any, batch: Batch) -> Tensor:
        maps = self.heatmaps(prediction)[-1]
        visible = (batch["weight"] > 0).to(torch.float32)
        joints = self._joints(batch, maps)
        found = joint_accuracy(maps, joints, visible, input_size=input_size_of(batch), **self.target)
        return torch.stack([found.mean, found.counted.to(found.mean.dtype)])

    def _joints(self, batch: Batch, maps: Tensor) -> Tensor:
        if self.codec != "udp":
            return batch["joints"]
        return strided_joints(batch["joints"], input_size_of(batch), (maps.shape[3], maps.shape[2]))


def input_size_of(batch: Batch) -> tuple[int, int]:
    height, width = batch["crop"].shape[1:3]
    return width, height
