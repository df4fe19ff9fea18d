"""Residual blocks of ResNet and HRNet with the official parameter names (hrnet lib/models/pose_hrnet.py)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fastpose.nn.fuse import Branch, Sum, alike, fusable, fuse_sums, fuses, plain

Norm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels; nn.BatchNorm2d keeps PyTorch's momentum 0.1 and eps 1e-5."""

Activation = Callable[[], nn.Module]

MAX_FUSED_INPUTS = 64
"""Widest 1x1 expansion whose end of block is fused: HRNet's layer1. Wider ones are bound by arithmetic."""


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, norm: Norm = nn.BatchNorm2d
) -> list[nn.Module]:
    """Convolution without bias, padded to keep the size at stride 1, and its normalisation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, norm(outputs)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, inputs, H, W) -> (B, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        *,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = relu,
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, width, 3, stride, norm)
        self.relu = activation()
        self.conv2, self.bn2 = conv_bn(width, width, 3, 1, norm)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, a shortcut: (B, inputs, H, W) -> (B, 4 width, H / stride, W / stride)."""

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int = 1,
        *,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = relu,
    ) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = conv_bn(inputs, width, 1, 1, norm)
        self.conv2, self.bn2 = conv_bn(width, width, 3, stride, norm)
        self.conv3, self.bn3 = conv_bn(width, outputs, 1, 1, norm)
        self.relu = activation()
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        if self._fuses(x, out):
            return fuse_sums([self._as_sum(x, out)])[0]
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))

    def _fuses(self, x: Tensor, out: Tensor) -> bool:
        """Whether `fastpose.ops.fuse` takes over from conv3 on, with the shortcut."""
        if out.shape[1] > MAX_FUSED_INPUTS or not fuses([out, x]) or not plain(self.relu, nn.ReLU):
            return False
        ends = [(self.conv3, self.bn3)]
        if self.downsample is not None:
            if not plain(self.downsample, nn.Sequential) or len(self.downsample) != 2:
                return False
            ends.append((self.downsample[0], self.downsample[1]))
        return all(fusable(*end) for end in ends) and alike([norm for _, norm in ends])

    def _as_sum(self, x: Tensor, out: Tensor) -> Sum:
        end = Branch(out, self.conv3, self.bn3)
        if self.downsample is None:
            return Sum(x, (end,))
        return Sum(None, (end, Branch(x, self.downsample[0], self.downsample[1])))


def residual_layer(
    block: type[BasicBlock] | type[Bottleneck],
    inputs: int,
    width: int,
    blocks: int,
    stride: int = 1,
    *,
    norm: Norm = nn.BatchNorm2d,
    activation: Activation = relu,
) -> nn.Sequential:
    """`blocks` residual blocks; the first one takes `inputs` channels and the stride."""
    outputs = width * block.expansion
    first = block(inputs, width, stride, norm=norm, activation=activation)
    rest = [block(outputs, width, norm=norm, activation=activation) for _ in range(1, blocks)]
    return nn.Sequential(first, *rest)


def _shortcut(inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(*conv_bn(inputs, outputs, 1, stride, norm))
