"""Networks for running only: every BatchNorm that follows a convolution becomes part of its weights."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fastpose.models.hourglass_blocks import PreResidual
from fastpose.models.hrnet import HRNet
from fastpose.models.hrnet_cls import HRNetBody
from fastpose.models.hrnet_seg import HRNetSeg
from fastpose.models.pose_resnet import PoseResNet
from fastpose.models.simcc import SimCCHRNet, SimCCPoseResNet
from fastpose.nn import BasicBlock, Bottleneck
from fastpose.nn.frozen_norm import EPS, FrozenBatchNorm2d
from fastpose.nn.fuse import plain
from fastpose.nn.resnet import ResNetBody

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)

Network = TypeVar("Network", bound=nn.Module)

_FIRST, _SECOND, _THIRD = ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")
PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    BasicBlock: (_FIRST, _SECOND),
    Bottleneck: (_FIRST, _SECOND, _THIRD),
    HRNet: (_FIRST, _SECOND),
    HRNetBody: (_FIRST, _SECOND),
    HRNetSeg: (_FIRST, _SECOND),
    PoseResNet: (_FIRST,),
    SimCCHRNet: (_FIRST, _SECOND),
    SimCCPoseResNet: (_FIRST,),
    ResNetBody: (_FIRST,),
    PreResidual: (("conv1.conv", "bn2"), ("conv2.conv", "bn3")),
}
"""What these modules call one straight after the other; in an nn.Sequential the order says it."""


@torch.no_grad()
def folded(model: Network, dtype: torch.dtype | None = None) -> Network:
    """A copy of a network in eval mode that computes the same with fewer passes over its maps.

    The scale and the offset of a BatchNorm (also a frozen one) go into the convolution or transposed
    convolution before it, worked out in float64, and nn.Identity takes its place. Other BatchNorms stay:
    those before a convolution or behind a ReLU (hourglasses), those that use the statistics of the batch, and
    all that somebody hooked, replaced or subclassed. The copy is for running: its parameters take no gradient
    and its names fit no weights file. `model` itself is not changed.

    Args:
        model: a network of `fastpose.models`; another nn.Module is folded where it is an nn.Sequential.
        dtype: that of the convolutions' parameters in the copy, such as torch.bfloat16 where it will run
            under such an autocast, which then has no weights to cast. None: as they are.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    used = Counter(id(module) for _, module in copied.named_modules(remove_duplicate=False))
    for holder, conv_name, norm_name in list(_pairs(copied)):
        conv, norm = holder.get_submodule(conv_name), holder.get_submodule(norm_name)
        if _foldable(conv, norm) and used[id(conv)] == used[id(norm)] == 1:
            _fold(conv, norm)
            holder.set_submodule(norm_name, nn.Identity())
    return copied if dtype is None else _cast(copied, dtype)


@torch.no_grad()
def with_cast_convolutions(model: Network, dtype: torch.dtype) -> Network:
    """A copy of a network in eval mode with the parameters of its convolutions in autocast's dtype.

    Under such an autocast it computes the same bits, which are cast once instead of in every call: a CUDA
    graph would replay a launch and the traffic of 6 bytes a parameter for each of them. All else is as in
    `model`, also BatchNorms, which the exchange units of HRNet want to see (`fastpose.nn.fuse`).
    """
    return _cast(copy.deepcopy(model).eval().requires_grad_(False), dtype)


def _cast(model: Network, dtype: torch.dtype) -> Network:
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            module.to(dtype)
    return model


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """(module, name, name): the second child is called on what the first one returns and on nothing else."""
    for module in model.modules():
        if not plain(module, nn.Sequential, *PAIRS):
            continue
        names = list(module._modules)
        chain = isinstance(module, nn.Sequential)
        pairs = pairwise(names) if chain else PAIRS[type(module)]
        for first, second in pairs:
            yield module, first, second


def _foldable(conv: Any, norm: Any) -> bool:
    if not plain(conv, *CONVOLUTIONS) or not plain(norm, *NORMS):
        return False
    if isinstance(conv, nn.ConvTranspose2d) and conv.groups > 1:
        return False  # its weights are laid out by input
    # Without running statistics a BatchNorm takes those of the batch.
    return norm.running_mean is not None and conv.out_channels == len(norm.running_mean)


def _fold(conv: Any, norm: Any) -> None:
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        _double(conv.bias),
        norm.running_mean.double(),
        norm.running_var.double(),
        EPS if isinstance(norm, FrozenBatchNorm2d) else norm.eps,
        _double(norm.weight),
        _double(norm.bias),
        transpose=isinstance(conv, nn.ConvTranspose2d),
    )
    kept = conv.weight
    conv.weight = nn.Parameter(torch.empty_like(kept).copy_(weight), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(kept.dtype), requires_grad=False)


def _double(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.double()
