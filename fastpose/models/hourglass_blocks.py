"""Residual blocks and recursive modules of the stacked hourglass networks (arXiv:1603.06937, 3)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.nn.streams import run_branches
from fastpose.nn.upsample import upsample_add

Residuals = Literal["pre", "post", "separable"]
"""Where a block's activation stands: before the convolution, after it, or after a depthwise-separable one."""

KINDS: tuple[str, ...] = ("pre", "post", "separable")


def conv_block(
    inputs: int, outputs: int, kernel: int, *then: str, stride: int = 1, separable: bool = False
) -> nn.Sequential:
    """Convolution `conv` with bias, padded to keep the size at stride 1, `then` 'bn' and 'relu' as given."""
    conv: nn.Module
    if separable:
        conv = nn.Sequential(
            OrderedDict(
                depthwise=nn.Conv2d(
                    inputs, inputs, kernel, stride, padding=kernel // 2, groups=inputs, bias=False
                ),
                pointwise=nn.Conv2d(inputs, outputs, 1),
            )
        )
    else:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    for step in then:
        layers[step] = nn.BatchNorm2d(outputs) if step == "bn" else nn.ReLU(inplace=True)
    return nn.Sequential(layers)


class PreResidual(nn.Module):
    """BatchNorm, ReLU and convolution three times (1x1, 3x3, 1x1), and a shortcut.

    (B, inputs, H, W) -> (B, outputs, H, W). Names of pytorch_stacked_hourglass models/layers.py; where the
    width stays, the official blocks hold a `skip_layer` that they never use, and this one holds None.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv_block(inputs, half, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(half), conv_block(half, half, 3)
        self.bn3, self.conv3 = nn.BatchNorm2d(half), conv_block(half, outputs, 1)
        self.skip_layer = None if inputs == outputs else conv_block(inputs, outputs, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.bn1(x)))
        out = self.conv2(self.relu(self.bn2(out)))
        out = self.conv3(self.relu(self.bn3(out)))
        return out + (x if self.skip_layer is None else self.skip_layer(x))


class PostResidual(nn.Module):
    """Convolution, ReLU and BatchNorm three times (1x1, 3x3, 1x1), and a shortcut, itself with a ReLU.

    (B, inputs, H, W) -> (B, outputs, H, W). `separable`: every convolution, the 1x1 ones too, is a depthwise
    one without bias and a pointwise one.
    """

    def __init__(self, inputs: int, outputs: int, separable: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1 = conv_block(inputs, half, 1, "relu", "bn", separable=separable)
        self.conv2 = conv_block(half, half, 3, "relu", "bn", separable=separable)
        self.conv3 = conv_block(half, outputs, 1, "relu", "bn", separable=separable)
        self.skip_layer = (
            None if inputs == outputs else conv_block(inputs, outputs, 1, "relu", separable=separable)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv3(self.conv2(self.conv1(x)))
        return out + (x if self.skip_layer is None else self.skip_layer(x))


def residual(kind: str, inputs: int, outputs: int) -> nn.Module:
    if kind == "pre":
        return PreResidual(inputs, outputs)
    return PostResidual(inputs, outputs, separable=kind == "separable")


def place(kind: str, width: int, count: int) -> nn.Module:
    """What stands at one place of an hourglass: a residual, or a sequence of `count` of them."""
    if count == 1:
        return residual(kind, width, width)
    return nn.Sequential(*(residual(kind, width, width) for _ in range(count)))


class PreLevel(nn.Module):
    """An hourglass `depth` halvings deep, (B, width, H, W) in and out; H and W multiples of 2^depth.

    Names of pytorch_stacked_hourglass models/layers.py, Hourglass. The two ways are independent of each other
    and may share the GPU (`fastpose.nn.streams`).
    """

    def __init__(self, depth: int, width: int, count: int) -> None:
        super().__init__()
        self.up1 = place("pre", width, count)
        self.low1 = place("pre", width, count)
        self.low2 = PreLevel(depth - 1, width, count) if depth > 1 else place("pre", width, count)
        self.low3 = place("pre", width, count)

    def forward(self, x: Tensor) -> Tensor:
        low, skip = run_branches([self._halved, self.up1], [x, x])
        return upsample_add(skip, low)

    def _halved(self, x: Tensor) -> Tensor:
        return self.low3(self.low2(self.low1(F.max_pool2d(x, 2))))


class PostLevel(nn.Module):
    """As `PreLevel`, with a place before the ways part and one after they meet; the skip thus passes two.

    The bottom (depth 0) is `left`, then three places beside one.
    """

    def __init__(self, kind: str, depth: int, width: int, count: int) -> None:
        super().__init__()
        self.depth = depth
        self.left = place(kind, width, count)
        self.skip = place(kind, width, count)
        if depth:
            self.low: nn.Module = PostLevel(kind, depth - 1, width, count)
            self.right = place(kind, width, count)
        else:
            self.low = nn.Sequential(*(place(kind, width, count) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.left(x)
        if self.depth == 0:
            return self.skip(x) + self.low(x)
        low, skip = run_branches([self._halved, self.skip], [x, x])
        return self.right(upsample_add(skip, low))

    def _halved(self, x: Tensor) -> Tensor:
        return self.low(F.max_pool2d(x, 2))
