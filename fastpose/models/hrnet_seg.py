"""HRNetV2 for segmentation (arXiv:1904.04514): names and numbers of seg lib/models/seg_hrnet.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastpose.errors import ConfigError
from fastpose.models.hrnet import HRModule, HRNetConfig, Transition
from fastpose.models.meta import SegmentationMeta, StrPath
from fastpose.models.network import SegmentationModel
from fastpose.models.registry import register_segmentation
from fastpose.models.weights import load_weights
from fastpose.nn import Bottleneck, conv_bn, residual_layer
from fastpose.nn.bilinear import BilinearExchange, enlarge

__all__ = [
    "HRNetSeg",
    "HRNetSegConfig",
    "hrnet_seg_w18",
    "hrnet_seg_w18_small_v1",
    "hrnet_seg_w18_small_v2",
    "hrnet_seg_w30",
    "hrnet_seg_w32",
    "hrnet_seg_w48",
]

WRAPPED = re.compile(r"^((module|model)\.)+(?=.)")
"""The official trainer keeps the network as `model` beside its loss, inside DistributedDataParallel."""

LOSS_BUFFERS = "loss."


@dataclass(frozen=True)
class HRNetSegConfig(HRNetConfig):
    """`layer1_width`: that of the first stage's Bottlenecks, whose output is four times as wide."""

    layer1_width: int = 64


CONFIGS = {
    "hrnet_seg_w18_small_v1": HRNetSegConfig(
        16, layer1_blocks=1, blocks=2, modules=(1, 1, 1), layer1_width=32
    ),
    "hrnet_seg_w18_small_v2": HRNetSegConfig(18, layer1_blocks=2, blocks=2, modules=(1, 3, 2)),
    "hrnet_seg_w18": HRNetSegConfig(18),
    "hrnet_seg_w30": HRNetSegConfig(30),
    "hrnet_seg_w32": HRNetSegConfig(32),
    "hrnet_seg_w48": HRNetSegConfig(48),
}


class HRNetSeg(SegmentationModel):
    """Images (B, 3, H, W), normalised -> logits (B, num_classes, ceil(H / 4), ceil(W / 4)); any H and W.

    All four branches are enlarged to the finest one and classified together. `meta.align_corners` and
    `meta.bn_momentum` hold for the whole network, also when `meta` is set later, as a weights file does.
    """

    backbone_layers = (
        "conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "stage2", "transition2", "stage3",
        "transition3", "stage4",
    )  # fmt: skip

    def __init__(self, config: HRNetSegConfig, meta: SegmentationMeta) -> None:
        super().__init__(meta)
        w = [config.width * 2**i for i in range(4)]
        self.conv1, self.bn1 = conv_bn(3, 64, 3, 2)
        self.conv2, self.bn2 = conv_bn(64, 64, 3, 2)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_layer(Bottleneck, 64, config.layer1_width, config.layer1_blocks)
        self.transition1 = Transition([config.layer1_width * Bottleneck.expansion], w[:2])
        self.stage2 = _stage(config, w[:2], config.modules[0])
        self.transition2 = Transition(w[:2], w[:3])
        self.stage3 = _stage(config, w[:3], config.modules[1])
        self.transition3 = Transition(w[:3], w)
        self.stage4 = _stage(config, w, config.modules[2])
        self.last_layer = nn.Sequential(
            nn.Conv2d(sum(w), sum(w), 1),
            nn.BatchNorm2d(sum(w)),
            nn.ReLU(inplace=True),
            nn.Conv2d(sum(w), meta.num_classes, 1),
        )
        self.meta = meta
        self.reset_parameters()

    @property
    def meta(self) -> SegmentationMeta:
        return self._meta

    @meta.setter
    def meta(self, meta: SegmentationMeta) -> None:
        self._meta = meta
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = meta.bn_momentum
            elif isinstance(module, BilinearExchange):
                module.align_corners = meta.align_corners

    def reset_parameters(self, init: str = "official") -> None:
        """Fresh parameters: BatchNorm 1 and 0, biases 0, and convolutions by `init`.

        'official' is N(0, 0.001), meant to be followed by ImageNet weights; 'kaiming' is that of HRNet's
        classification networks, fan-out for ReLU, which learns faster from nothing; the classifier stays
        N(0, 0.001). Another name raises ConfigError.
        """
        if init not in ("official", "kaiming"):
            raise ConfigError(f"init must be 'official' or 'kaiming', got {init!r}")
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if init == "kaiming" and module is not self.last_layer[-1]:
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                else:
                    nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def adapt_names(self, found: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Takes off the official trainer's `model.`; its loss's class weights are not the network's."""
        plain = {WRAPPED.sub("", name): tensor for name, tensor in found.items()}
        unused = [name for name in plain if name.startswith(LOSS_BUFFERS)]
        return {name: tensor for name, tensor in plain.items() if name not in unused}, unused

    def forward(self, x: Tensor) -> Tensor:
        _check_input(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = self.stage2(self.transition1([self.layer1(x)]))
        branches = self.stage3(self.transition2(branches))
        finest, *coarser = self.stage4(self.transition3(branches))
        size, align_corners = finest.shape[2:], self.meta.align_corners
        maps = [finest, *(enlarge(branch, size, align_corners) for branch in coarser)]
        return self.last_layer(torch.cat(maps, 1))


def _stage(config: HRNetSegConfig, widths: list[int], modules: int) -> nn.Sequential:
    return nn.Sequential(
        *(HRModule(widths, config.blocks, len(widths), BilinearExchange) for _ in range(modules))
    )


def _check_input(x: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:]:
        raise ValueError(f"HRNetSeg takes images (B, 3, H, W), got shape {tuple(x.shape)}")


def _create(name: str, num_classes: int, weights: StrPath | None, options: dict[str, Any]) -> HRNetSeg:
    model = HRNetSeg(CONFIGS[name], SegmentationMeta(name, num_classes).with_options(options))
    if weights is not None:
        load_weights(model, weights)
        model.meta = model.meta.with_options(options)
    return model


@register_segmentation
def hrnet_seg_w48(num_classes: int = 19, *, weights: StrPath | None = None, **options: Any) -> HRNetSeg:
    """HRNetV2-W48, 65.9 million parameters.

    `weights`: a file that `fastpose.models.load_weights` reads, also one of the official trainer or an
    ImageNet classification network's; without one the official initialisation.
    Options: `align_corners` (False in the official configurations of this network), `bn_momentum` (0.1; 0.01
    in the official branch for PyTorch 1.1), `classes` (ClassSet), `input_size` (width, height) of the
    training crops, `channel_order`, `mean`, `std`. They override what the weights file says; official files
    say nothing.
    Raises ConfigError for an argument that cannot be, CheckpointError for a file that cannot be used.
    """
    return _create("hrnet_seg_w48", num_classes, weights, options)


@register_segmentation
def hrnet_seg_w32(num_classes: int = 19, *, weights: StrPath | None = None, **options: Any) -> HRNetSeg:
    """HRNetV2-W32, 29.5 million parameters; arguments as for `hrnet_seg_w48`."""
    return _create("hrnet_seg_w32", num_classes, weights, options)


@register_segmentation
def hrnet_seg_w30(num_classes: int = 19, *, weights: StrPath | None = None, **options: Any) -> HRNetSeg:
    """HRNetV2-W30, 26.0 million parameters; arguments as for `hrnet_seg_w48`."""
    return _create("hrnet_seg_w30", num_classes, weights, options)


@register_segmentation
def hrnet_seg_w18(num_classes: int = 19, *, weights: StrPath | None = None, **options: Any) -> HRNetSeg:
    """HRNetV2-W18, 9.6 million parameters; arguments as for `hrnet_seg_w48`."""
    return _create("hrnet_seg_w18", num_classes, weights, options)


@register_segmentation
def hrnet_seg_w18_small_v2(
    num_classes: int = 19, *, weights: StrPath | None = None, **options: Any
) -> HRNetSeg:
    """HRNetV2-W18-small-v2, 3.9 million parameters; arguments as for `hrnet_seg_w48`."""
    return _create("hrnet_seg_w18_small_v2", num_classes, weights, options)


@register_segmentation
def hrnet_seg_w18_small_v1(
    num_classes: int = 19, *, weights: StrPath | None = None, **options: Any
) -> HRNetSeg:
    """HRNetV2-W18-small-v1, 1.5 million parameters, widths 16 to 128; arguments as for `hrnet_seg_w48`."""
    return _create("hrnet_seg_w18_small_v1", num_classes, weights, options)
