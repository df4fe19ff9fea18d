"""ResNet without its classifier (arXiv:1512.03385), under the usual names: conv1, bn1, layer1 to layer4."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from fastpose.nn.blocks import Bottleneck, Norm, relu, residual_layer

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottlenecks in layer1 to layer4 by depth."""

CHANNELS = 512 * Bottleneck.expansion
"""Of layer4's output."""

STRIDE = 32
"""Of layer4's output; a size that is no multiple of it is rounded up."""


class Stem(NamedTuple):
    """From the image to a quarter of its size and 64 channels."""

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module


class ResNetBody(nn.Module):
    """Images (B, 3, H, W), normalised -> features (B, 2048, H / 32, W / 32), the output of layer4.

    `depth` is 50, 101 or 152, else ValueError. `norm(channels)` makes each normalisation: nn.BatchNorm2d, or
    a frozen one. Stride 2 lies on the 3x3 convolutions (torchvision's and the official pose networks'
    variant). An ImageNet file of the usual names fills it, but for its `fc.`. A network that needs these
    names at its own top level calls `resnet_stem` and `resnet_layers` instead.
    """

    def __init__(self, depth: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = resnet_stem(norm)
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet_layers(depth, norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def resnet_stem(norm: Norm = nn.BatchNorm2d) -> Stem:
    """7x7 convolution of stride 2, normalisation, ReLU and 3x3 maximum of stride 2."""
    conv = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    return Stem(conv, norm(64), relu(), nn.MaxPool2d(3, stride=2, padding=1))


def resnet_layers(depth: int, norm: Norm = nn.BatchNorm2d) -> list[nn.Sequential]:
    """layer1 to layer4: Bottlenecks of width 64, 128, 256 and 512, each layer but the first of stride 2."""
    if depth not in BLOCKS:
        raise ValueError(f"depth: expected one of {', '.join(map(str, BLOCKS))}, got {depth!r}")
    layers, inputs = [], 64
    for i, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**i
        layers.append(residual_layer(Bottleneck, inputs, width, blocks, stride=1 if i == 0 else 2, norm=norm))
        inputs = width * Bottleneck.expansion
    return layers
