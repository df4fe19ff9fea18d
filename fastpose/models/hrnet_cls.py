"""HRNet's classification network without its classifier, as a backbone (prtr lib/models/hrnet.py)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fastpose.models.hrnet import STRIDE, HRModule, HRNetConfig, Transition
from fastpose.models.sizes import check_images
from fastpose.nn import Bottleneck, conv_bn, residual_layer
from fastpose.nn.init import reset_convolutions

CHANNELS = 2048
"""Of the output."""

HEAD_WIDTHS = (32, 64, 128, 256)
"""Of the Bottlenecks that widen the four branches to 128, 256, 512 and 1024 channels."""


class HRNetBody(nn.Module):
    """Images (B, 3, H, W), normalised -> features (B, 2048, H / 32, W / 32).

    All four branches are widened by a Bottleneck each and added from the finest to the coarsest, halved on
    the way. H and W must be multiples of 32, else ValueError. An ImageNet file of HRNet fills it, but for its
    `classifier.`.
    """

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        w = [config.width * 2**i for i in range(4)]
        self.conv1, self.bn1 = conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, 2)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_layer(Bottleneck, 64, 64, config.layer1_blocks)
        self.transition1 = Transition([64 * Bottleneck.expansion], w[:2])
        self.stage2 = _stage(config, w[:2], config.modules[0])
        self.transition2 = Transition(w[:2], w[:3])
        self.stage3 = _stage(config, w[:3], config.modules[1])
        self.transition3 = Transition(w[:3], w)
        self.stage4 = _stage(config, w, config.modules[2])
        self.incre_modules = nn.ModuleList(
            residual_layer(Bottleneck, inputs, width, 1) for inputs, width in zip(w, HEAD_WIDTHS, strict=True)
        )
        outputs = [width * Bottleneck.expansion for width in HEAD_WIDTHS]
        self.downsamp_modules = nn.ModuleList(
            _with_bias(fine, coarse, 3, 2) for fine, coarse in pairwise(outputs)
        )
        self.final_layer = _with_bias(outputs[-1], CHANNELS, 1, 1)

    def reset_parameters(self) -> None:
        """Kaiming convolutions, fan-out for ReLU, biases 0, BatchNorm 1 and 0."""
        reset_convolutions(self, "kaiming", last=self)

    def forward(self, x: Tensor) -> Tensor:
        check_images("HRNet", x, STRIDE)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = self.stage2(self.transition1([self.layer1(x)]))
        branches = self.stage3(self.transition2(branches))
        branches = self.stage4(self.transition3(branches))
        total = self.incre_modules[0](branches[0])
        for widen, halve, branch in zip(
            self.incre_modules[1:], self.downsamp_modules, branches[1:], strict=True
        ):
            total = widen(branch) + halve(total)
        return self.final_layer(total)


def _stage(config: HRNetConfig, widths: list[int], modules: int) -> nn.Sequential:
    return nn.Sequential(*(HRModule(widths, config.blocks, len(widths)) for _ in range(modules)))


def _with_bias(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
