"""Heatmaps to keypoints: flip average, argmax, refinement, inverse affine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastpose.reference.dark import check_blur_kernel, refine_dark
from fastpose.reference.udp import refine_dark_udp, udp_to_image

REFINEMENTS = ("none", "quarter", "dark", "quarter_each", "dark_udp")
UNITS = ("size", "size-1")
PIXELS_PER_SCALE = 200.0  # a box of scale (sx, sy) is 200 sx by 200 sy pixels


class Decoded(NamedTuple):
    keypoints: Tensor  # (B, K, 2) float32, (x, y); image pixels, or heatmap pixels without center and scale
    score: Tensor  # (B, K) float32, the value of the peak; 0 where no value is finite
    valid: Tensor  # (B, K) bool, False where a map has no finite value


def flip_heatmaps(heatmaps: Tensor, flip_index: Sequence[int] | Tensor) -> Tensor:
    """Heatmaps of a mirrored crop in the frame of the crop: columns reversed, left and right joints swapped.

    Args:
        heatmaps: (B, K, H, W), any dtype.
        flip_index: K indices, a permutation (`KeypointSet.flip_index`). A sequence is copied to the device at
            each call; under CUDA-graph capture pass an int64 tensor that is already there.

    Returns:
        (B, K, H, W), same dtype.

    Raises:
        ValueError: `heatmaps` is not 4-D or `flip_index` is no permutation of its joints.

    Source: hrnet lib/utils/transforms.py, flip_back.
    """
    _expect_maps("heatmaps", heatmaps)
    return heatmaps.flip(-1).index_select(1, _flip_tensor(flip_index, heatmaps))


def flip_average(
    heatmaps: Tensor, flipped: Tensor, flip_index: Sequence[int] | Tensor, shift: bool = True
) -> Tensor:
    """Mean of the heatmaps and of the network's raw output on the mirrored batch.

    Args:
        heatmaps, flipped: (B, K, H, W), floating point.
        flip_index: as in `flip_heatmaps`.
        shift: move the mirrored-back maps one pixel to the right first (column 0 stays), which aligns them
            with the unflipped ones when the input is an even multiple of the heatmap.

    Returns:
        (B, K, H, W) float32, `(heatmaps + mirrored) * 0.5`.

    Raises:
        ValueError: shapes differ, or as `flip_heatmaps`.

    Source: hrnet lib/core/function.py, validate (TEST.SHIFT_HEATMAP).
    """
    if flipped.shape != heatmaps.shape:
        raise ValueError(
            f"flipped: expected the shape of heatmaps {tuple(heatmaps.shape)}, got {tuple(flipped.shape)}"
        )
    mirrored = flip_heatmaps(flipped, flip_index).float()
    if shift:
        mirrored = torch.cat((mirrored[..., :1], mirrored[..., :-1]), dim=-1)
    return (heatmaps.float() + mirrored) * 0.5


def argmax_heatmaps(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Peak of every map among its finite values; ties go to the lowest flat index.

    Args:
        heatmaps: (B, K, H, W), floating point; compared as float32.

    Returns:
        xy: (B, K, 2) float32 in heatmap pixels, (0, 0) where the peak is not positive or nothing is finite.
        score: (B, K) float32, the peak; 0 where nothing is finite.
        valid: (B, K) bool, False where nothing is finite.

    Raises:
        ValueError: `heatmaps` is not 4-D or has no pixels.

    Source: hrnet lib/core/inference.py, get_max_preds.
    """
    _expect_maps("heatmaps", heatmaps)
    width = heatmaps.shape[3]
    flat = heatmaps.float().flatten(2)
    finite = flat.isfinite()
    index = flat.masked_fill(~finite, -torch.inf).argmax(dim=-1, keepdim=True)
    valid = finite.any(dim=-1)
    score = torch.where(valid, flat.gather(-1, index).squeeze(-1), 0.0)
    index = torch.where(score > 0, index.squeeze(-1), 0)
    xy = torch.stack((index % width, index // width), dim=-1).float()
    return xy, score, valid


def decode_heatmaps(
    heatmaps: Tensor,
    center: Tensor | None = None,
    scale: Tensor | None = None,
    *,
    flipped: Tensor | None = None,
    flip_index: Sequence[int] | Tensor | None = None,
    shift: bool = True,
    refine: str = "quarter",
    blur_kernel: int = 11,
    unit: str = "size",
) -> Decoded:
    """Keypoints of a batch of heatmaps, mapped back to the image.

    Args:
        heatmaps: (B, K, H, W), floating point; all arithmetic on it is float32.
        center: (B, 2) centre of the crop box in image pixels, or None for coordinates in heatmap pixels.
        scale: (B, 2) size of the crop box / 200 px; only the width is used, as in the official code.
        flipped, flip_index, shift: as in `flip_average`, which is done when the first two are given.
        refine: "none" keeps whole pixels, "quarter" moves a peak a quarter pixel towards its higher
            neighbour, per axis, "dark" is `refine_dark`, with `blur_kernel` taps. The first moves no peak
            on the two outermost cells of a side; "quarter_each" asks that of each axis alone, as mmpose does.
            "dark_udp" is `fastpose.reference.udp.refine_dark_udp`.
        unit: how a map lies on its crop box: "size", or "size-1" for the weights of UDP (`udp_to_image`).

    Returns:
        `Decoded`. A map whose peak is not positive gives heatmap (0, 0), mapped like any other point.

    Raises:
        TypeError, ValueError: an argument is wrong, or one of a pair is missing.

    Source: hrnet and DARK lib/core/inference.py, get_final_preds; hrnet lib/core/function.py, validate.
    """
    check_refinement(refine, blur_kernel)
    check_unit(unit)
    if flipped is not None:
        heatmaps = flip_average(heatmaps, flipped, _needed(flip_index), shift)
    if (center is None) != (scale is None):
        raise ValueError("center and scale: give both, or neither for coordinates in heatmap pixels")
    xy, score, valid = argmax_heatmaps(heatmaps)
    if refine in ("quarter", "quarter_each"):
        xy = xy + 0.25 * _slope_sign(heatmaps, xy, each=refine == "quarter_each")
    elif refine == "dark":
        xy = refine_dark(heatmaps, xy, score, blur_kernel)
    elif refine == "dark_udp":
        xy = refine_dark_udp(heatmaps, xy, score, blur_kernel)
    if center is not None and scale is not None:
        back = to_image if unit == "size" else udp_to_image
        xy = back(xy, center, scale, heatmaps.shape[3], heatmaps.shape[2])
    return Decoded(xy, score, valid)


def _needed(flip_index: Sequence[int] | Tensor | None) -> Sequence[int] | Tensor:
    if flip_index is None:
        raise ValueError("flip_index: needed with flipped, got None; pass KeypointSet.flip_index")
    return flip_index


def check_refinement(refine: str, blur_kernel: int) -> None:
    """TypeError or ValueError where `decode_heatmaps` knows no such refinement or cannot blur like that."""
    if refine not in REFINEMENTS:
        raise ValueError(f"refine: expected one of {', '.join(REFINEMENTS)}, got {refine!r}")
    check_blur_kernel(blur_kernel)


def check_unit(unit: str) -> None:
    """ValueError where `decode_heatmaps` knows no such unit."""
    if unit not in UNITS:
        raise ValueError(f"unit: expected {' or '.join(UNITS)}, got {unit!r}")


def _slope_sign(heatmaps: Tensor, xy: Tensor, each: bool) -> Tensor:
    """(B, K, 2) in {-1, 0, 1}: sign of the central differences at xy; 0 near the border and for NaN.

    `each`: an axis is near the border by itself, but for row 0 along x and column 0 along y.
    """
    height, width = heatmaps.shape[2:]
    flat = heatmaps.float().flatten(2)
    x, y = xy.long().unbind(-1)
    inner_x, inner_y = (x > 1) & (x < width - 1), (y > 1) & (y < height - 1)
    along_x, along_y = (y > 0, x > 0) if each else (inner_y, inner_x)
    inner = torch.stack((inner_x & along_x, inner_y & along_y), dim=-1)
    index = (y * width + x).unsqueeze(-1)
    last = height * width - 1

    def difference(step: int) -> Tensor:
        above = flat.gather(-1, (index + step).clamp(max=last))
        below = flat.gather(-1, (index - step).clamp(min=0))
        return above - below

    slope = torch.cat((difference(1), difference(width)), dim=-1)
    sign = (slope > 0).float() - (slope < 0).float()
    return sign * inner


def to_image(xy: Tensor, center: Tensor, scale: Tensor, width: int, height: int) -> Tensor:
    """Official inverse affine without rotation: heatmap pixels to image pixels.

    The official code solves for the map that takes three heatmap points to three image points, and rounds
    those points to float32. Without rotation the solution is axis-parallel, one factor and one offset each.
    """
    for name, value in (("center", center), ("scale", scale)):
        if value.shape != (xy.shape[0], 2):
            raise ValueError(f"{name}: expected shape {(xy.shape[0], 2)}, got {tuple(value.shape)}")
    x0, y0 = center.float().unbind(-1)
    y1 = y0 - 0.5 * (scale.float()[:, 0] * PIXELS_PER_SCALE)
    x2 = x0 - (y0 - y1)
    origin = torch.stack((x0, y0), dim=-1).double().unsqueeze(1)
    reach = torch.stack((x0.double() - x2.double(), y0.double() - y1.double()), dim=-1).unsqueeze(1)
    half = 0.5 * width  # the official map scales both axes by the width
    offset = torch.stack((xy[..., 0] - half, xy[..., 1] - 0.5 * height), dim=-1).double()
    return (origin + reach * offset / half).float()  # this order: of quarter pixels the product is exact


def _expect_maps(name: str, value: Tensor) -> None:
    if value.ndim != 4 or value.shape[2] == 0 or value.shape[3] == 0:
        raise ValueError(f"{name}: expected (B, K, H, W) with H, W > 0, got {tuple(value.shape)}")


def _flip_tensor(flip_index: Sequence[int] | Tensor, heatmaps: Tensor) -> Tensor:
    joints = heatmaps.shape[1]
    if isinstance(flip_index, Tensor):
        right = flip_index.shape == (joints,)
    else:
        flip_index = tuple(flip_index)
        right = sorted(flip_index) == list(range(joints))
    if not right:
        raise ValueError(f"flip_index: expected a permutation of {joints} joints, got {flip_index}")
    return torch.as_tensor(flip_index, device=heatmaps.device)
