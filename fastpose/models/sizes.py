"""Sizes of images that a network whose coarsest map has a given stride can take."""

from __future__ import annotations

from torch import Tensor

from fastpose.errors import ConfigError
from fastpose.models.meta import Meta


def check_images(network: str, x: Tensor, stride: int) -> None:
    """ValueError unless `x` is (B, 3, H, W) with H and W multiples of `stride`."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"{network} takes images (B, 3, H, W), got shape {tuple(x.shape)}")
    height, width = x.shape[2:]
    if height < stride or width < stride or height % stride or width % stride:
        raise ValueError(
            f"{network}'s input must be a multiple of {stride} wide and high, "
            f"got width {width}, height {height}"
        )


def check_input_size(meta: Meta, stride: int) -> None:
    """ConfigError unless the network's own input size is a multiple of `stride` in both directions."""
    if any(n % stride for n in meta.input_size):
        raise ConfigError(f"{meta.model}: input_size must be multiples of {stride}, got {meta.input_size}")
