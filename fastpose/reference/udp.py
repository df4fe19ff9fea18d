"""Unbiased data processing (UDP): targets, refinement and the way back, in the unit from pixel to pixel.

In this unit a map of W cells is W - 1 long, so that its first and last cells are those of the crop and a
mirrored map lies on the map itself. Source: arXiv:1911.07524; mmpose codecs/udp_heatmap.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose.reference.dark import blur_weights
from fastpose.reference.heatmap import check_heatmap_arguments

_LEAST, _MOST = 1e-3, 50.0
_PIXELS_PER_SCALE = 200.0
_STEPS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
_EPSILON = torch.finfo(torch.float32).eps


def udp_positions(joints: Tensor, input_size: tuple[int, int], heatmap_size: tuple[int, int]) -> Tensor:
    """joints (..., 2) in input pixels -> (..., 2) float64 in heatmap cells; sizes are (width, height).

    Raises:
        ValueError: a size is not positive, or an input is a single pixel wide or high.
    """
    if min(*input_size, *heatmap_size) < 1 or min(input_size) < 2:
        raise ValueError(f"expected sizes of at least 2 pixels and 1 cell, got {input_size}, {heatmap_size}")
    ratio = [(cells - 1) / (pixels - 1) for cells, pixels in zip(heatmap_size, input_size, strict=True)]
    return torch.stack([joints[..., axis].double() * ratio[axis] for axis in (0, 1)], dim=-1)


def strided_joints(joints: Tensor, input_size: tuple[int, int], heatmap_size: tuple[int, int]) -> Tensor:
    """The joints, (..., 2) float64, that lie at stride `input_size / heatmap_size` where `joints` lie in UDP.

    With them `heatmap_loss` and `gaussian_heatmaps` with `unbiased` draw the Gaussians of UDP. These fill the
    map, where mmpose cuts them off at 3 sigma from the nearest cell (`udp_heatmaps`), which is at most
    exp(-(3 sigma + 0.5)² / 2 sigma²): 0.0051 for sigma 2.
    """
    cells = udp_positions(joints, input_size, heatmap_size)
    return torch.stack([cells[..., i] * (input_size[i] / heatmap_size[i]) for i in (0, 1)], dim=-1)


def udp_heatmaps(
    joints: Tensor,
    visible: Tensor,
    *,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """The targets of mmpose's UDPHeatmap ('gaussian'): centres between cells, patches around the nearest one.

    Args:
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64; any value.
        visible: (B, K), a joint is drawn where it exceeds 0.5.
        heatmap_size, input_size: (width, height).
        sigma: in heatmap cells; a patch reaches `3 sigma` cells to each side of its middle.

    Returns:
        heatmaps (B, K, height, width) float32, and weight (B, K) float32, `visible`, but 0 where a coordinate
        is NaN or the patch misses the map.

    Raises:
        ValueError: a shape, a size or sigma is wrong.

    Source: mmpose codecs/utils/gaussian_heatmap.py, generate_udp_gaussian_heatmaps.
    """
    check_heatmap_arguments(joints, visible, heatmap_size, input_size, sigma)
    cells = udp_positions(joints, input_size, heatmap_size)
    middle, radius = (cells + 0.5).trunc(), int(3 * sigma)
    size = torch.tensor(heatmap_size, device=cells.device)
    inside = ((middle - radius < size) & (middle + radius + 1 >= 0)).all(-1)
    weight = torch.where(inside, visible.float(), 0.0)
    axes = []
    for axis in (0, 1):
        grid = torch.arange(heatmap_size[axis], device=cells.device)
        gaussian = torch.exp(-0.5 * ((grid - cells[..., axis, None]) / sigma).square())
        axes.append(gaussian.masked_fill((grid - middle[..., axis, None]).abs() > radius, 0.0))
    maps = (axes[1][..., :, None] * axes[0][..., None, :]).float()
    return torch.where((weight > 0.5)[..., None, None], maps, 0.0), weight


def refine_dark_udp(heatmaps: Tensor, xy: Tensor, score: Tensor, kernel: int) -> Tensor:
    """Peaks moved by one Newton step on the logarithm of the blurred map, as UDP does.

    Unlike `fastpose.reference.dark.refine_dark` this clamps the blurred map to 0.001 .. 50 and continues it
    by its outermost cells, so that peaks at the border move too, takes differences of neighbouring cells, and
    adds 2^-23 to the diagonal of the second ones. A peak that is not positive stays where it is, and so
    does one with NaN or infinity in reach of the blur, and one whose result would not be finite.

    Args:
        heatmaps: (B, K, H, W), floating point; read as float32.
        xy: (B, K, 2) float32 whole heatmap cells, from `argmax_heatmaps`, with score (B, K).
        kernel: taps of the blur, as in `fastpose.reference.dark.blur_weights`.

    Returns:
        (B, K, 2) float32 in heatmap cells, always finite.

    Source: mmpose codecs/utils/refinement.py, refine_keypoints_dark_udp.
    """
    weights = blur_weights(kernel)
    level = _blurred_around(heatmaps, xy, weights)
    finite = (score > 0) & level.isfinite().all(-1).all(-1)
    scale = score.double() / _highest(heatmaps, weights).double()
    level = (level * scale[..., None, None]).clamp(_LEAST, _MOST).log()
    moved = xy.double() - _newton_step({(dx, dy): level[..., 1 + dy, 1 + dx] for dx, dy in _STEPS})
    sound = (finite & moved.float().isfinite().all(-1)).unsqueeze(-1)
    return torch.where(sound, moved.float(), xy)


def _blurred_around(heatmaps: Tensor, xy: Tensor, weights: Sequence[float]) -> Tensor:
    """(B, K, 3, 3) float64: the blurred maps at xy and around it, where off the map those at its border.

    Only what is in reach is read. As in `fastpose.reference.dark.blur_heatmaps` there are zeros around a map,
    and each blurred value is rounded to float32.
    """
    height, width = heatmaps.shape[2:]
    radius = len(weights) - 1
    steps = torch.arange(-radius - 1, radius + 2, device=heatmaps.device)
    x, y = (axis.long().unsqueeze(-1) + steps for axis in xy.unbind(-1))
    index = y.clamp(0, height - 1).unsqueeze(-1) * width + x.clamp(0, width - 1).unsqueeze(-2)
    values = heatmaps.float().flatten(2).gather(-1, index.flatten(2)).double().view_as(index)
    on_map = ((y >= 0) & (y < height)).unsqueeze(-1) & ((x >= 0) & (x < width)).unsqueeze(-2)
    values = torch.where(on_map, values, 0.0)
    for dim in (2, 3):
        padded, values = values, torch.zeros_like(values.narrow(dim, 0, 3))
        for tap in range(-radius, radius + 1):
            values = values + weights[abs(tap)] * padded.narrow(dim, radius + tap, 3)
    middle = slice(radius, radius + 3)
    for dim, axis, size in ((3, x[..., middle], width), (2, y[..., middle], height)):
        pick = torch.where((axis >= 0) & (axis < size), torch.arange(3, device=axis.device), 1)
        pick = pick.unsqueeze(2 if dim == 3 else 3)
        values = values.gather(dim, pick.expand_as(values))
    return values.float().double()


def _highest(heatmaps: Tensor, weights: Sequence[float]) -> Tensor:
    """(B, K) float32: maximum of the blurred maps, what is not finite read as 0."""
    maps = heatmaps.float()
    maps = torch.where(maps.isfinite(), maps, 0.0)
    down, across = (_band(size, weights, maps.device) for size in maps.shape[2:])
    return (down @ maps @ across).flatten(2).amax(-1)


def _band(size: int, weights: Sequence[float], device: torch.device) -> Tensor:
    """(size, size) float32, the blur of an axis as a matrix, made without a copy to the device."""
    cells = torch.arange(size, device=device)
    distance = (cells[:, None] - cells).abs()
    band = torch.zeros(size, size, device=device)
    for step, weight in enumerate(weights):
        band = band + weight * (distance == step)
    return band


def _newton_step(at: dict[tuple[int, int], Tensor]) -> Tensor:
    """(..., 2), to be subtracted."""
    dx, dy = 0.5 * (at[1, 0] - at[-1, 0]), 0.5 * (at[0, 1] - at[0, -1])
    dxx = at[1, 0] - 2 * at[0, 0] + at[-1, 0] + _EPSILON
    dyy = at[0, 1] - 2 * at[0, 0] + at[0, -1] + _EPSILON
    around = at[1, 0] + at[-1, 0] + at[0, 1] + at[0, -1]
    dxy = 0.5 * (at[1, 1] + at[-1, -1] + 2 * at[0, 0] - around)
    det = dxx * dyy - dxy * dxy
    return torch.stack(((dyy * dx - dxy * dy) / det, (dxx * dy - dxy * dx) / det), dim=-1)


def udp_to_image(xy: Tensor, center: Tensor, scale: Tensor, width: int, height: int) -> Tensor:
    """xy (B, K, 2) in cells of a map of width x height -> float32 image pixels, without rotation.

    center: (B, 2) image pixels; scale: (B, 2) size of the crop box / 200 px, of which only the width counts:
    it is as high as the map is for its width. A map a single cell wide or high lies in the middle of the box.
    """
    for name, value in (("center", center), ("scale", scale)):
        if value.shape != (xy.shape[0], 2):
            raise ValueError(f"{name}: expected shape {(xy.shape[0], 2)}, got {tuple(value.shape)}")
    box_width = (scale.float()[:, 0] * _PIXELS_PER_SCALE).double()[:, None]
    found = []
    for axis, cells, length in ((0, width, box_width), (1, height, box_width * (height / width))):
        share = xy[..., axis].double() / (cells - 1) - 0.5 if cells > 1 else 0.0 * xy[..., axis].double()
        found.append(center[:, axis, None].double() + length * share)
    return torch.stack(found, dim=-1).float()
