"""Unbiased data processing (UDP): targets, refinement and the way back, in the unit from pixel to pixel.

In this unit a map of W cells is W - 1 long, so that its first and last cells are those of the crop and a
mirrored map lies on the map itself. Source: arXiv:1911.07524; mmpose codecs/udp_heatmap.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.reference.dark import blur_heatmaps
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
    map, where mmpose cuts them off at 3 sigma from the nearest cell (`udp_heatmaps`): up to 0.0052 of the
    peak's height for sigma 2.
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

    Unlike `fastpose.reference.dark.refine_dark` the blurred map is clamped to 0.001 .. 50 and continued by its
    outermost cells, so that peaks at the border move too, differences are those of neighbouring cells, and
    2^-23 is added to the diagonal of the second ones. A peak that is not positive stays where it is, and so
    does one with NaN or infinity in reach of the blur, and one whose result would not be finite.

    Args:
        heatmaps: (B, K, H, W), floating point; read as float32.
        xy: (B, K, 2) float32 whole heatmap cells, from `argmax_heatmaps`, with score (B, K).
        kernel: taps of the blur, as in `fastpose.reference.dark.blur_weights`.

    Returns:
        (B, K, 2) float32 in heatmap cells, always finite.

    Source: mmpose codecs/utils/refinement.py, refine_keypoints_dark_udp.
    """
    height, width = heatmaps.shape[2:]
    x, y = xy.long().unbind(-1)
    blurred = blur_heatmaps(heatmaps, kernel).double().flatten(2)
    highest = blurred.masked_fill(~blurred.isfinite(), -torch.inf).amax(-1)
    scale = score.double() / highest
    finite = score > 0
    level = {}
    for dx, dy in _STEPS:
        index = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        value = blurred.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        finite = finite & value.isfinite()
        level[dx, dy] = (value * scale).clamp(_LEAST, _MOST).log()
    moved = xy.double() - _newton_step(level)
    sound = (finite & moved.float().isfinite().all(-1)).unsqueeze(-1)
    return torch.where(sound, moved.float(), xy)


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
