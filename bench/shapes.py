"""The distinct convolutions of a network, from its trace."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import torch
from torch import nn

from bench.roofline import Graph, trace
from fastpose.models.hrnet import HRNet, HRNetConfig
from fastpose.models.meta import ModelMeta


class Shape(NamedTuple):
    """A convolution of one sample without bias: channels, side of its kernel, stride, width and height of its
    input."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    width: int
    height: int

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def pixels(self) -> int:
        """Of its output."""
        return (self.width // self.stride) * (self.height // self.stride)

    @property
    def macs(self) -> int:
        return self.pixels * self.inputs * self.outputs * self.kernel**2

    @property
    def in_blocks(self) -> bool:
        """Whether it keeps width and resolution, as the 3x3 convolutions of residual blocks do."""
        return self.kernel == 3 and self.stride == 1 and self.inputs == self.outputs

    def __str__(self) -> str:
        stride = f"s{self.stride}" if self.stride > 1 else ""
        kernel = f"{self.kernel}x{self.kernel}{stride}"
        return f"{kernel}-{self.inputs}to{self.outputs}-{self.height}x{self.width}"


def convolutions(graph: Graph, size: tuple[int, int]) -> Counter[Shape]:
    """How often each occurs in a network traced on images of `size` (width, height); kernels are square."""
    found: Counter[Shape] = Counter()
    for op in graph.ops:
        if op.kind == "conv":
            before, after = graph.values[op.inputs[0]], graph.values[op.outputs[0]]
            area = before.elements // before.channels
            height = math.isqrt(area * size[1] // size[0])
            kernel = math.isqrt(op.weights // (before.channels * after.channels))
            stride = math.isqrt(area // (after.elements // after.channels))
            found[Shape(before.channels, after.channels, kernel, stride, area // height, height)] += 1
    return found


def distinct_convolutions(width: int, size: tuple[int, int]) -> list[Shape]:
    """Those of pose HRNet of this width, those of its blocks first, then the largest.

    Traced is a network with fewer blocks and modules, which has the same ones and takes a tenth of the time.
    """
    config = HRNetConfig(width, layer1_blocks=2, blocks=1, modules=(1, 1, 2))
    with torch.device("meta"):
        network: nn.Module = HRNet(config, ModelMeta("hrnet", 17)).train()
    found = convolutions(trace(network, size), size)
    return sorted(found, key=lambda shape: (not shape.in_blocks, -shape.macs, shape))
