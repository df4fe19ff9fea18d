"""A very small HRNet for tests of everything but its accuracy."""

from __future__ import annotations

import torch
from golden_models import fill

from fastpose.models import HRNet, HRNetConfig, ModelMeta, PoseModel


def tiny(num_joints: int = 3, width: int = 2, filled: bool = False, **meta: object) -> HRNet:
    config = HRNetConfig(width=width, layer1_blocks=1, blocks=1, modules=(1, 1, 1))
    model = HRNet(config, ModelMeta("tiny", num_joints, **meta))
    if filled:
        fill(model)
    return model


def same(a: PoseModel, b: PoseModel) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
