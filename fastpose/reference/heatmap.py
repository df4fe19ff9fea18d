"""Gaussian target heatmaps from joint coordinates."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_heatmaps(
    joints: Tensor,
    visible: Tensor,
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """One rounded, truncated Gaussian of peak 1 per joint.

    The centre is `trunc(joint / (input_size / heatmap_size) + 0.5)`, taken in float64 for either input dtype,
    as the official code does; the patch reaches `int(3 sigma)` cells to each side and is zero beyond.

    Args:
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64; any value, NaN and infinities included.
        visible: (B, K), a joint is drawn where it exceeds 0.5.
        heatmap_size, input_size: (width, height).
        sigma: in heatmap cells, positive.

    Returns:
        heatmaps: (B, K, height, width) float32.
        weight: (B, K) float32, `visible`, but 0 where the patch misses the map or a coordinate is NaN; a
            patch that ends one cell short of column or row 0 keeps it, as in the official code.

    Raises:
        ValueError: a shape, a size or sigma is wrong.

    Source: hrnet lib/dataset/JointsDataset.py, generate_target.
    """
    check_heatmap_arguments(joints, visible, heatmap_size, input_size, sigma)
    width, height = heatmap_size
    radius = int(3 * sigma)
    x, inside_x = _centre(joints[..., 0], width, input_size[0], radius)
    y, inside_y = _centre(joints[..., 1], height, input_size[1], radius)
    weight = torch.where(inside_x & inside_y, visible.float(), 0.0)
    dx = torch.arange(width, device=joints.device) - x[..., None]
    dy = torch.arange(height, device=joints.device)[:, None] - y[..., None, None]
    near = (dy.abs() <= radius) & ((dx.abs() <= radius) & (weight > 0.5)[..., None])[..., None, :]
    distance = dy.square() + dx.square()[..., None, :]
    return torch.exp(-distance / (2.0 * sigma**2)).masked_fill(~near, 0.0), weight


def check_heatmap_arguments(
    joints: Tensor,
    visible: Tensor,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float,
) -> None:
    """ValueError naming the first argument of `gaussian_heatmaps` that is wrong."""
    if joints.ndim != 3 or joints.shape[-1] != 2 or joints.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"joints: expected (B, K, 2) float32 or float64, got {tuple(joints.shape)} {joints.dtype}"
        )
    if visible.shape != joints.shape[:2]:
        raise ValueError(f"visible: expected {tuple(joints.shape[:2])}, got {tuple(visible.shape)}")
    for name, size in (("heatmap_size", heatmap_size), ("input_size", input_size)):
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"{name}: expected positive (width, height), got {tuple(size)}")
    if not 0 < sigma < float("inf"):
        raise ValueError(f"sigma: expected a positive number of heatmap cells, got {sigma}")


def _centre(position: Tensor, cells: int, pixels: int, radius: int) -> tuple[Tensor, Tensor]:
    """Centre cell as float32, and whether its patch can touch the map; 0 where it cannot.

    Nothing is cast to an integer, so coordinates no integer can hold are well defined.
    """
    cell = (position.double() / (pixels / cells) + 0.5).trunc()
    inside = (cell >= -(radius + 1)) & (cell <= cells + radius - 1)
    return torch.where(inside, cell, 0.0).float(), inside
