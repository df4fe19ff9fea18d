"""BatchNorm that never changes, as DETR and its descendants freeze their ImageNet backbones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


class FrozenBatchNorm2d(nn.Module):
    """(x - running_mean) / sqrt(running_var + 1e-5) * weight + bias for x (B, C, H, W), in training as well.

    All four are buffers, so nothing here is trained, and there is no step counter: these are the names of
    prtr lib/models/backbone.py. One pass over x, whose arithmetic is float32 for half-precision x.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def reset_parameters(self) -> None:
        """Back to the identity, but for eps."""
        self.weight.fill_(1.0)
        self.bias.zero_()
        self.running_mean.zero_()
        self.running_var.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=EPS)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={EPS}"
