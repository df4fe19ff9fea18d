"""Where a token of a feature map lies, as sines and cosines (arXiv:2005.12872, A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0
EPS = 1e-6


def sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Row and column numbers, each scaled to 2 pi, at `channels` / 4 frequencies as sine and cosine.

    Returns (height * width, channels) float32, row by row; the first half of the channels encodes the row,
    the second the column, sine and cosine of a frequency side by side. `channels` must be a multiple of 4
    (else ValueError). Numbers are in float32 whatever the network's dtype, as officially; nothing is copied
    from the host, so that it can be captured in a CUDA graph.

    Source: prtr lib/models/position_encoding.py, PositionEmbeddingSine.
    """
    if channels % 4:
        raise ValueError(f"channels: expected a multiple of 4, got {channels}")
    rows = _encode(height, channels // 2, device)[:, None].expand(height, width, -1)
    columns = _encode(width, channels // 2, device)[None].expand(height, width, -1)
    return torch.cat((rows, columns), dim=2).flatten(0, 1)


def _encode(count: int, channels: int, device: torch.device) -> Tensor:
    """(count, channels): the numbers 1 to `count`."""
    numbers = torch.arange(1, count + 1, dtype=torch.float32, device=device)
    scaled = numbers / (count + EPS) * (2 * math.pi)
    exponent = torch.arange(channels // 2, dtype=torch.float32, device=device) * (2 / channels)
    angles = scaled[:, None] / TEMPERATURE**exponent
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)
