"""HRNet whose finest branch keeps the resolution of the image, as in an early TensorFlow port of HRNet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fastpose.models.hrnet import CONFIGS, HRModule, HRNetConfig, Transition
from fastpose.models.meta import ModelMeta, StrPath
from fastpose.models.network import PoseModel
from fastpose.models.registry import register_model
from fastpose.models.sizes import check_images, check_input_size
from fastpose.models.weights import load_weights
from fastpose.nn import Bottleneck, conv_bn, residual_layer
from fastpose.nn.init import reset_convolutions

__all__ = ["HRNetFullRes", "hrnet_fullres_w32"]

STRIDE = 8
"""Of the coarsest branch: the input's width and height must be multiples of it."""

SLOPE = 0.1


def leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE, inplace=True)


class FullResExchange(nn.ModuleList):
    """`fastpose.nn.Exchange` with leaky ReLU, and with the 1x1 convolutions after the nearest upsampling.

    The numbers are those of the other order, the cost is 4 times higher for each octave, as it is in the
    network described.
    """

    def __init__(self, widths: list[int], num_outputs: int) -> None:
        rows = ([_path(widths, source, row) for source in range(len(widths))] for row in range(num_outputs))
        super().__init__(nn.ModuleList(row) for row in rows)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return [self._row(row, branches) for row in self]

    @staticmethod
    def _row(row: Any, branches: list[Tensor]) -> Tensor:
        total = row[0](branches[0])
        for j in range(1, len(branches)):
            total = total + row[j](branches[j])
        return F.leaky_relu(total, SLOPE)


class HRNetFullRes(PoseModel):
    """Images (B, 3, H, W), normalised -> heatmaps (B, num_joints, H, W), one cell a pixel.

    HRNet without its stem: the first Bottleneck takes the three channels of the image, and the branches have
    1, 1/2, 1/4 and 1/8 of its size, so H and W must be multiples of 8 (else ValueError). Every ReLU is leaky,
    of slope 0.1. Some 16 times the cost of HRNet of the same width. The layers are called as in HRNet, but no
    weights fit both.

    The network described divides each map by its sum over the image, a distribution over pixels. Not here:
    the targets of `fastpose.ops.heatmap_loss` are Gaussians of peak 1, and the maps of joints out of sight
    are zero, which no map of sum 1 can be. With one cell a pixel a mirrored picture needs no shift of its
    heatmaps, which `meta.shift` says, and `data.sigma` is in pixels of the crop.
    """

    def __init__(self, config: HRNetConfig, meta: ModelMeta) -> None:
        super().__init__(meta if meta.shift is not None else replace(meta, shift=False))
        w = [config.width * 2**i for i in range(4)]
        self.layer1 = residual_layer(Bottleneck, 3, 64, config.layer1_blocks, activation=leaky)
        self.transition1 = Transition([64 * Bottleneck.expansion], w[:2], leaky)
        self.stage2 = _stage(config, w[:2], config.modules[0])
        self.transition2 = Transition(w[:2], w[:3], leaky)
        self.stage3 = _stage(config, w[:3], config.modules[1])
        self.transition3 = Transition(w[:3], w, leaky)
        self.stage4 = _stage(config, w, config.modules[2], last_outputs=1)
        self.final_layer = nn.Conv2d(w[0], meta.num_joints, 1)
        self.reset_parameters("kaiming")

    def reset_parameters(self, init: str = "official") -> None:
        """As `HRNet.reset_parameters`: 'official' is N(0, 0.001), 'kaiming' learns faster from nothing.

        A new network has the latter, as there are no ImageNet weights for it.
        """
        reset_convolutions(self, init, last=self.final_layer, slope=SLOPE)

    def conventions_of(self, unused: list[str]) -> dict[str, Any]:
        return {"shift": False}

    def forward(self, x: Tensor) -> Tensor:
        check_images("HRNetFullRes", x, STRIDE)
        branches = self.stage2(self.transition1([self.layer1(x)]))
        branches = self.stage3(self.transition2(branches))
        branches = self.stage4(self.transition3(branches))
        return self.final_layer(branches[0])


def _path(widths: list[int], source: int, row: int) -> nn.Module:
    """What brings branch `source` to the resolution and the width of branch `row`."""
    if source == row:
        return nn.Identity()
    if source > row:
        up = nn.Upsample(scale_factor=2 ** (source - row), mode="nearest")
        return nn.Sequential(up, *conv_bn(widths[source], widths[row], 1))
    steps = [
        nn.Sequential(*conv_bn(widths[source], widths[source], 3, 2), leaky())
        for _ in range(row - source - 1)
    ]
    return nn.Sequential(*steps, nn.Sequential(*conv_bn(widths[source], widths[row], 3, 2)))


def _stage(
    config: HRNetConfig, widths: list[int], modules: int, last_outputs: int | None = None
) -> nn.Sequential:
    outputs = [len(widths)] * modules
    outputs[-1] = last_outputs or len(widths)
    return nn.Sequential(*(HRModule(widths, config.blocks, n, FullResExchange, leaky) for n in outputs))


@register_model
def hrnet_fullres_w32(
    num_joints: int = 17, *, weights: StrPath | None = None, **options: Any
) -> HRNetFullRes:
    """HRNet-W32 at the full resolution of the image; arguments as for `hrnet_w32`.

    There are no published weights: `weights` is a file that fastpose saved.
    """
    meta = ModelMeta("hrnet_fullres_w32", num_joints).with_options(options)
    model = HRNetFullRes(CONFIGS["hrnet_w32"], meta)
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    check_input_size(model.meta, STRIDE)
    return model
