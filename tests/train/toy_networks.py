"""One network of each family through its public class, small enough to learn in seconds on a CPU."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from fastpose.models import (
    PRTR,
    Hourglass,
    HourglassConfig,
    HRNet,
    HRNetConfig,
    HRNetFullRes,
    HRNetSeg,
    HRNetSegConfig,
    ModelMeta,
    PoseResNet,
    SegmentationMeta,
    pose_resnet,
    registry,
)
from fastpose.nn.blocks import conv_bn
from fastpose.nn.resnet import BLOCKS, CHANNELS

SMALL = HRNetConfig(width=8, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
THIN = 14
"""Depth of a ResNet with one Bottleneck a layer."""


def toy_hrnet(num_joints: int = 17, *, weights: Any = None, **options: Any) -> HRNet:
    return HRNet(SMALL, _meta("toy_hrnet", num_joints, options))


def toy_pose_resnet(num_joints: int = 17, *, weights: Any = None, **options: Any) -> PoseResNet:
    return PoseResNet(THIN, _meta("toy_pose_resnet", num_joints, options))


def toy_hourglass(num_joints: int = 17, *, weights: Any = None, **options: Any) -> Hourglass:
    config = HourglassConfig(2, depth=2, width=32, stem_widths=(32, 32))
    return Hourglass(config, _meta("toy_hourglass", num_joints, options))


def toy_hourglass_mobile(num_joints: int = 17, *, weights: Any = None, **options: Any) -> Hourglass:
    config = HourglassConfig(1, depth=2, width=32, stem_widths=(32, 32), residual="separable")
    return Hourglass(config, _meta("toy_hourglass_mobile", num_joints, options))


def toy_fullres(num_joints: int = 17, *, weights: Any = None, **options: Any) -> HRNetFullRes:
    config = HRNetConfig(width=16, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    return HRNetFullRes(config, _meta("toy_fullres", num_joints, options))


def toy_prtr(num_joints: int = 17, *, weights: Any = None, **options: Any) -> PRTR:
    body = nn.Sequential()
    for inputs, outputs in ((3, 32), (32, 32), (32, 64), (64, 128), (128, 128)):
        body.extend([*conv_bn(inputs, outputs, 3, 2), nn.ReLU(inplace=True)])
    body.extend([*conv_bn(128, CHANNELS, 1), nn.ReLU(inplace=True)])
    return PRTR(body, _meta("toy_prtr", num_joints, options), channels=64, layers=2, num_queries=20)


def toy_seg(num_classes: int = 7, *, weights: Any = None, **options: Any) -> HRNetSeg:
    config = HRNetSegConfig(width=8, layer1_blocks=1, blocks=1, modules=(1, 1, 1), layer1_width=16)
    return HRNetSeg(config, SegmentationMeta("toy_seg", num_classes).with_options(options))


def _meta(name: str, num_joints: int, options: dict[str, Any]) -> ModelMeta:
    return ModelMeta(name, num_joints).with_options(options)


def register_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes them known to `create_model` until the end of the test."""
    monkeypatch.setitem(BLOCKS, THIN, (1, 1, 1, 1))
    monkeypatch.setattr(pose_resnet, "DECONV_CHANNELS", 32)
    for known in ("_factories", "_tasks"):
        monkeypatch.setattr(registry, known, dict(getattr(registry, known)))
    for toy in (toy_hrnet, toy_pose_resnet, toy_hourglass, toy_hourglass_mobile, toy_fullres, toy_prtr):
        registry.register_model(toy)
    registry.register_segmentation(toy_seg)
