"""Residual networks written out from the names of their parameters, as a truth without any module."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class NamedLayers:
    """Layers by name over a state_dict; `training`: BatchNorm by the batch's own statistics."""

    state: dict[str, torch.Tensor]
    training: bool = False
    slope: float = 0.0

    def activate(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, self.slope * x)

    def normalise(self, x: torch.Tensor, norm: str) -> torch.Tensor:
        weight, bias, mean, var = (
            self.state[f"{norm}.{key}"][:, None, None]
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        if self.training:
            mean = x.mean((0, 2, 3), keepdim=True)
            var = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def conv_bn(self, x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = self.state[f"{conv}.weight"]
        return self.normalise(F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2), norm)

    def block(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        """BasicBlock or Bottleneck, whichever the names say; the stride is that of the first 3x3."""
        count = 3 if f"{name}.conv3.weight" in self.state else 2
        out = x
        for i in range(1, count + 1):
            step = stride if i == count - 1 else 1
            out = self.conv_bn(out, f"{name}.conv{i}", f"{name}.bn{i}", step)
            out = self.activate(out) if i < count else out
        if f"{name}.downsample.0.weight" in self.state:
            x = self.conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
        return self.activate(out + x)

    def layer(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        i = 0
        while f"{name}.{i}.conv1.weight" in self.state:
            x = self.block(x, f"{name}.{i}", stride if i == 0 else 1)
            i += 1
        assert i > 0, name
        return x

    def resnet(self, x: torch.Tensor) -> torch.Tensor:
        """conv1 to layer4."""
        x = self.activate(self.conv_bn(x, "conv1", "bn1", 2))
        x = F.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            x = self.layer(x, f"layer{i}", 1 if i == 1 else 2)
        return x
