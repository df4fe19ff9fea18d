"""What a forward pass costs, counted and not looked up."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from fastpose.models.network import Network
from fastpose.models.registry import create_model


def count_parameters(model: torch.nn.Module) -> int:
    """Trained and frozen parameters, and what a frozen BatchNorm keeps as buffers is not among them."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: Network, size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions, matrix products and attention for one input of `size` (width, height).

    Interpolation, normalisation and activations are not counted. Works on the meta device, where it takes no
    memory. Published "GFLOPs" of HRNet are these divided by 2^30, and overcount transposed convolutions.
    """
    width, height = size
    parameter = next(model.parameters())
    x = torch.empty(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return counter.get_total_flops() // 2


def describe(name: str) -> tuple[Network, int, int]:
    """The network on the meta device with its default outputs, its parameters and the MACs of its input."""
    with torch.device("meta"):
        model: Network = create_model(name)
    return model, count_parameters(model), count_macs(model, model.meta.input_size)
