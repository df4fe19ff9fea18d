"""Distribution-aware refinement of peaks (DARK): a Newton step on the logarithm of the blurred heatmap."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_BLUR_KERNEL = 63
_LEAST_VALUE = 1e-10
_REACH = 2  # of the differences, in pixels
_SMALL_KERNELS = {  # what OpenCV takes in place of the formula
    1: (1.0,),
    3: (0.5, 0.25),
    5: (0.375, 0.25, 0.0625),
    7: (0.28125, 0.21875, 0.109375, 0.03125),
    9: (0.234375, 0.19921875, 0.1171875, 0.05078125, 0.015625),
}


def check_blur_kernel(kernel: int) -> None:
    if isinstance(kernel, bool) or not isinstance(kernel, int):
        raise TypeError(f"blur_kernel: expected an int, got {type(kernel).__name__}")
    if not 0 < kernel <= MAX_BLUR_KERNEL or kernel % 2 == 0:
        raise ValueError(f"blur_kernel: expected an odd number from 1 to {MAX_BLUR_KERNEL}, got {kernel}")


def blur_weights(kernel: int) -> tuple[float, ...]:
    """Weights of OpenCV's Gaussian of `kernel` taps by distance from its centre, `kernel // 2 + 1` of them.

    sigma = 0.3 ((kernel - 1) / 2 - 1) + 0.8, the whole kernel sums to 1; up to 9 taps OpenCV has a table.

    Raises:
        TypeError, ValueError: `kernel` is not an odd whole number from 1 to 63.

    Source: OpenCV modules/imgproc, getGaussianKernel.
    """
    check_blur_kernel(kernel)
    if kernel in _SMALL_KERNELS:
        return _SMALL_KERNELS[kernel]
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    half = [math.exp(-(distance**2) / (2 * sigma * sigma)) for distance in range(kernel // 2 + 1)]
    total = half[0] + 2 * math.fsum(half[1:])
    return tuple(weight / total for weight in half)


def blur_heatmaps(heatmaps: Tensor, kernel: int) -> Tensor:
    """Gaussian blur of every map, with zeros around it.

    Args:
        heatmaps: (B, K, H, W), floating point; read as float32.
        kernel: taps, as in `blur_weights`.

    Returns:
        (B, K, H, W) float32; the sums are float64, and a value with NaN or infinity in reach is not finite.

    Source: DARK lib/core/inference.py, gaussian_blur.
    """
    weights = blur_weights(kernel)
    radius = len(weights) - 1
    blurred = heatmaps.float().double()
    for dim in (2, 3):
        size = blurred.shape[dim]
        padded = torch.nn.functional.pad(blurred, (0, 0, radius, radius) if dim == 2 else (radius, radius))
        blurred = torch.zeros_like(blurred)
        for tap in range(kernel):  # in this order, which the compiled decoders follow
            blurred = blurred + weights[abs(tap - radius)] * padded.narrow(dim, tap, size)
    return blurred.float()


def refine_dark(heatmaps: Tensor, xy: Tensor, score: Tensor, kernel: int) -> Tensor:
    """Peaks moved by one Newton step on the logarithm of the blurred map.

    The blurred map is scaled to the old maximum and clamped at 1e-10, and the differences around the peak are
    taken for those of a quadratic. A peak stays where it is outside 1 < x < W - 2, 1 < y < H - 2, where the
    determinant is 0, where NaN or infinity is in reach of the blur, and where the result would not be finite.

    Args:
        heatmaps: (B, K, H, W), floating point; read as float32.
        xy: (B, K, 2) float32 whole heatmap pixels, from `argmax_heatmaps`, with score (B, K).
        kernel: taps of the blur, as in `blur_weights`.

    Returns:
        (B, K, 2) float32 in heatmap pixels, always finite.

    Source: DARK lib/core/inference.py, gaussian_blur and taylor; arXiv:1910.06278.
    """
    height, width = heatmaps.shape[2:]
    x, y = xy.long().unbind(-1)
    inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    blurred = blur_heatmaps(heatmaps, kernel).double().flatten(2)
    highest = blurred.masked_fill(~blurred.isfinite(), -torch.inf).amax(-1)
    scale = (score.double() / highest).unsqueeze(-1)
    index = torch.where(inner, y * width + x, 0).unsqueeze(-1)
    finite = inner

    def level(dx: int, dy: int) -> Tensor:
        nonlocal finite
        value = blurred.gather(-1, (index + dy * width + dx).clamp(0, height * width - 1))
        finite = finite & value.isfinite().squeeze(-1)
        return (value * scale).clamp(min=_LEAST_VALUE).log().squeeze(-1)

    moved = xy.double() + _newton_step({(dx, dy): level(dx, dy) for dx, dy in _points()})
    sound = (finite & moved.float().isfinite().all(-1)).unsqueeze(-1)
    return torch.where(sound, moved.float(), xy)


def _points() -> list[tuple[int, int]]:
    """The 13 points that the differences read."""
    reach = range(-_REACH, _REACH + 1)
    return [(dx, dy) for dy in reach for dx in reach if abs(dx) + abs(dy) <= _REACH]


def _newton_step(at: dict[tuple[int, int], Tensor]) -> Tensor:
    """(..., 2) step to the extremum of the quadratic; not finite where there is none."""
    dx = 0.5 * (at[1, 0] - at[-1, 0])
    dy = 0.5 * (at[0, 1] - at[0, -1])
    dxx = 0.25 * (at[2, 0] - 2 * at[0, 0] + at[-2, 0])
    dyy = 0.25 * (at[0, 2] - 2 * at[0, 0] + at[0, -2])
    dxy = 0.25 * (at[1, 1] - at[1, -1] - at[-1, 1] + at[-1, -1])
    det = dxx * dyy - dxy * dxy
    step = torch.stack((-(dyy * dx - dxy * dy) / det, -(dxx * dy - dxy * dx) / det), dim=-1)
    return torch.where((det != 0).unsqueeze(-1), step, torch.nan)
