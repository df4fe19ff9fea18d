"""Gaussian target heatmaps from joint coordinates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_REACH = 2**50
"""Cells from a joint beyond which no sigma reaches: where float64 still counts cells one by one."""


def gaussian_heatmaps(
    joints: Tensor,
    visible: Tensor,
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
) -> tuple[Tensor, Tensor]:
    """One Gaussian of peak 1 per joint: rounded and truncated, or unbiased and whole.

    Rounded, the centre is `trunc(joint / (input_size / heatmap_size) + 0.5)`; the patch reaches
    `int(3 sigma)` cells to each side and is zero beyond. Unbiased, the centre is `joint / stride` as it is,
    and the Gaussian fills the map. Centres are taken in float64 for either input dtype, as officially.

    Args:
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64; any value, NaN and infinities included.
        visible: (B, K), a joint is drawn where it exceeds 0.5.
        heatmap_size, input_size: (width, height).
        sigma: in heatmap cells, positive; `3 sigma` counts as at most MAX_REACH.
        unbiased: the sub-pixel centre of DARK.

    Returns:
        heatmaps: (B, K, height, width) float32.
        weight: (B, K) float32, `visible`, but 0 where the joint is dropped: a coordinate is NaN, or the patch
            misses the map. Rounded, a patch that ends one cell short of column or row 0 keeps its weight;
            unbiased, the joint is kept where `-3 sigma - 2 < centre < size + 3 sigma`. Both as in the
            official code, which truncates the corners of the patch towards zero.

    Raises:
        ValueError: a shape, a size or sigma is wrong.

    Source: hrnet and DARK (arXiv:1910.06278) lib/dataset/JointsDataset.py, generate_target.
    """
    check_heatmap_arguments(joints, visible, heatmap_size, input_size, sigma)
    width, height = heatmap_size
    x, inside_x = _centre(joints[..., 0], width, input_size[0], sigma, unbiased)
    y, inside_y = _centre(joints[..., 1], height, input_size[1], sigma, unbiased)
    weight = torch.where(inside_x & inside_y, visible.float(), 0.0)
    reach = math.inf if unbiased else _patch(sigma)
    across = _gaussian(x, width, sigma, reach)
    down = _gaussian(y, height, sigma, reach) * (weight > 0.5)[..., None]
    return down[..., :, None] * across[..., None, :], weight


def gaussian_peaks(
    joints: Tensor,
    visible: Tensor,
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
) -> Tensor:
    """Where `gaussian_heatmaps` of the same arguments has its maxima, without drawing them.

    Equal to the argmax of the maps, but for unbiased centres so close to the middle of two cells that their
    float32 values tie.

    Returns:
        (B, K, 2) float32, (x, y) in heatmap cells; (0, 0) where the map is empty.

    Raises:
        ValueError: as `gaussian_heatmaps`.
    """
    check_heatmap_arguments(joints, visible, heatmap_size, input_size, sigma)
    drawn = visible.float() > 0.5
    cells, distance = [], torch.zeros(visible.shape, device=joints.device)
    for axis in (0, 1):
        centre, inside = _centre(joints[..., axis], heatmap_size[axis], input_size[axis], sigma, unbiased)
        cell = (centre - 0.5).ceil().clamp(0, heatmap_size[axis] - 1)  # of two as near, the lower
        offset = (cell - centre).float()
        drawn = drawn & inside & (offset.abs() <= (math.inf if unbiased else _patch(sigma)))
        distance = distance + offset.square()
        cells.append(cell.float())
    drawn = drawn & (torch.exp(distance.double() / sigma / sigma * -0.5).float() > 0)
    return torch.where(drawn[..., None], torch.stack(cells, dim=-1), 0.0)


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


def _gaussian(centre: Tensor, cells: int, sigma: float, reach: float) -> Tensor:
    """One axis of the Gaussian, (..., cells) float32; the map is the product of two."""
    distance = torch.arange(cells, device=centre.device) - centre[..., None]
    scaled = distance / sigma  # before it is squared: the square of sigma may be 0 or infinite
    return torch.exp(scaled.square() * -0.5).masked_fill(distance.abs() > reach, 0.0).float()


def _patch(sigma: float) -> int:
    """Whole cells of a rounded patch to each side of its centre."""
    return int(min(3 * sigma, MAX_REACH))


def _centre(position: Tensor, cells: int, pixels: int, sigma: float, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Centre in cells as float64, and whether the joint is kept; 0 where it is not.

    Nothing is cast to an integer, so coordinates no integer can hold are well defined.
    """
    centre = position.double() / (pixels / cells)
    if unbiased:
        reach = min(3 * sigma, MAX_REACH)
        inside = (centre - reach < cells) & (centre + reach + 1 > -1)
    else:
        radius = _patch(sigma)
        centre = (centre + 0.5).trunc()
        inside = (centre >= -(radius + 1)) & (centre <= cells + radius - 1)
    return torch.where(inside, centre, 0.0), inside
