"""A very small PRTR for tests of everything but its accuracy."""

from __future__ import annotations

from typing import Any

import torch
from golden_models import fill
from torch import Tensor, nn

from fastpose.models import PRTR, ModelMeta
from fastpose.nn.frozen_norm import FrozenBatchNorm2d
from fastpose.nn.resnet import CHANNELS


class TinyBody(nn.Module):
    """Features of the size a ResNet gives, from one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, CHANNELS, 32, stride=32, bias=False)
        self.bn1 = FrozenBatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x)).relu()


def tiny_prtr(num_joints: int = 3, *, filled: bool = False, num_queries: int = 7, **meta: Any) -> PRTR:
    meta = {"input_size": (64, 64), **meta}
    model = PRTR(
        TinyBody(), ModelMeta("tiny", num_joints, **meta), channels=16, layers=2, num_queries=num_queries
    )
    if filled:
        fill(model)
    return model


def outputs_of(output: dict[str, Any]) -> list[Tensor]:
    """All tensors of an output, flattened by sorted key as the golden files are."""
    return [
        layer[name] for layer in (*output["aux_outputs"], output) for name in ("pred_coords", "pred_logits")
    ]


def crops(count: int = 2, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size)
