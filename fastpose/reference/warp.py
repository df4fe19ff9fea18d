"""Crops cut out of uint8 pictures by affine matrices, coloured and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["opencv", "bilinear"]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
MAX_SIDE = 32_766  # of a crop, as in OpenCV
GRID_BITS = 5  # OpenCV interpolates at 32 positions between two pixels
POSITION_BITS = 10  # and adds positions up in units of 1/1024 pixel
FAR = 2.0**28  # pixels; where a part of a position lies beyond, "bilinear" calls it outside


def warp_crops(
    images: Tensor,
    matrices: Tensor,
    *,
    output_size: tuple[int, int],
    sizes: Tensor | None = None,
    offsets: Tensor | None = None,
    origins: Tensor | None = None,
    flip: Tensor | None = None,
    gain: Tensor | None = None,
    shift: Tensor | None = None,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    dtype: torch.dtype = torch.float32,
    mode: Mode = "opencv",
    reverse_channels: bool = False,
) -> Tensor:
    """The crop that each matrix describes, black outside the picture; `fastpose.ops.warp_crops` says more.

    Arguments are taken as checked. Positions are float64 or integers, colours float32, whatever `dtype` is.

    Source: cv2.warpAffine of OpenCV 4 (INTER_LINEAR, BORDER_CONSTANT 0), found out by comparison.
    """
    inverse = invert_matrices(matrices.double())
    fixed = mode == "opencv"
    positions = _fixed_positions if fixed else _float_positions
    column, across = positions(inverse[:, 0], output_size)
    row, down = positions(inverse[:, 1], output_size)
    taps = _load_taps(images, column, row, sizes, offsets, origins, flip)
    value = _blend_fixed(taps, across, down) if fixed else _blend_float(taps, across, down)
    if reverse_channels:
        value = value.flip(-1)
    if gain is not None and shift is not None:
        value = (value * gain.float()[:, None, None] + shift.float()[:, None, None]).clamp(0.0, 255.0)
    if dtype == torch.uint8:
        return value.round().to(dtype)
    scales, biases = value.new_tensor(normalisation(mean, std))
    return (value * scales + biases).to(dtype).permute(0, 3, 1, 2)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Scale and bias of each channel: (grey / 255 - mean) / std is grey * scale + bias."""
    return [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]


def invert_matrices(matrices: Tensor) -> Tensor:
    """(B, 2, 3) float64 from picture to crop -> from crop to picture, rounded where OpenCV rounds.

    A matrix without an inverse becomes zeros: all of its crop is the picture's first pixel.
    """
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in matrices.unbind(-2))
    determinant = a * d - b * c
    over = torch.where(determinant != 0, 1 / determinant, 0.0)
    a, b, c, d = d * over, b * -over, c * -over, a * over
    return torch.stack([a, b, -a * x - b * y, c, d, -c * x - d * y], -1).unflatten(-1, (2, 3))


def _fixed_positions(inverse: Tensor, output_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixel before each position along one axis, and the 32nds beyond it, both (B, h, w) int32.

    `inverse` is a row of the matrices, (B, 3). What column and row add is rounded to 1/1024 pixel each, and
    their sum, which wraps around as int32, to 1/32.
    """
    per_column, per_row = _parts(inverse, output_size)
    unit, below = 2.0**POSITION_BITS, POSITION_BITS - GRID_BITS
    across = _nearest_integer(per_column * unit)[:, None, :]
    down = _nearest_integer(per_row * unit)[:, :, None] + (1 << below >> 1)
    position = (across + down) >> below
    return position >> GRID_BITS, position & ((1 << GRID_BITS) - 1)


def _float_positions(inverse: Tensor, output_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixel before each position along one axis, (B, h, w) int32, and the rest, float32 from 0 to 1."""
    (whole_x, rest_x), (whole_y, rest_y) = map(_split, _parts(inverse, output_size))
    rest = rest_x[:, None, :] + rest_y[:, :, None]
    carry = rest >= 1
    return whole_x[:, None, :] + whole_y[:, :, None] + carry.int(), rest - carry.float()


def _parts(inverse: Tensor, output_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """What the column (B, w) and the row (B, h) of the crop add to a position, float64."""
    x, y = (torch.arange(n, dtype=torch.float64, device=inverse.device) for n in output_size)
    return inverse[:, :1] * x, inverse[:, 1:2] * y + inverse[:, 2:]


def _nearest_integer(value: Tensor) -> Tensor:
    """float64 -> int32, ties to even; what int32 cannot hold becomes its least, as on x86."""
    return torch.where(value.abs() < 2.0**31 - 0.5, value.round(), -(2.0**31)).int()


def _split(position: Tensor) -> tuple[Tensor, Tensor]:
    """float64 -> floor as int32 and the rest as float32; far away where the position is, or is NaN."""
    near = position.abs() < FAR
    whole = torch.where(near, position, -2 * FAR).floor()
    return whole.int(), torch.where(near, position - whole, 0.0).float()


def _load_taps(
    images: Tensor,
    column: Tensor,
    row: Tensor,
    sizes: Tensor | None,
    offsets: Tensor | None,
    origins: Tensor | None,
    flip: Tensor | None,
) -> list[Tensor]:
    """The pixels at (row, column), to its right, below, and below to its right: each (B, h, w, 3) uint8."""
    batch = len(column)
    width, height, stride, start = _layout(images, batch, sizes, offsets)
    end = start + stride * height
    width = torch.where((start >= 0) & (end <= images.numel()), width, 0)
    if origins is not None:
        column, row = column - _each(origins[:, 0]).int(), row - _each(origins[:, 1]).int()
    # One black pixel more, to which all that lies outside is sent.
    flat = torch.cat([images.reshape(-1), images.new_zeros(3)])
    black = len(flat) - 3
    channels = torch.arange(3, device=images.device)
    taps = []
    for below in (0, 1):
        for right in (0, 1):
            x, y = (column + right).long(), (row + below).long()
            if flip is not None:
                x = torch.where(_each(flip), width - 1 - x, x)
            address = start + y * stride + 3 * x
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            taps.append(flat[torch.where(inside, address, black)[..., None] + channels])
    return taps


def _layout(
    images: Tensor, batch: int, sizes: Tensor | None, offsets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Width, height, bytes of a row and first byte of each picture, all (B or 1, 1, 1) int64."""
    if offsets is not None and sizes is not None:
        width, height = _each(sizes[:, 0]).long(), _each(sizes[:, 1]).long()
        return width, height, 3 * width, _each(offsets)
    start = torch.arange(batch, device=images.device) * images[0:1].numel()
    padded = torch.tensor(images.shape[2:0:-1], device=images.device).expand(batch, 2)
    inner = padded if sizes is None else torch.minimum(sizes.long(), padded)
    return _each(inner[:, 0]), _each(inner[:, 1]), _each(3 * padded[:, 0]), _each(start)


def _each(value: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1)."""
    return value[:, None, None]


def _blend_fixed(taps: list[Tensor], across: Tensor, down: Tensor) -> Tensor:
    """Whole grey levels, float32 (B, h, w, 3). The weights of a pixel are 1024ths and add up to one."""
    x, y = across[..., None], down[..., None]
    a, b, c, d = (tap.int() for tap in taps)
    top, bottom = a * (32 - x) + b * x, c * (32 - x) + d * x
    return ((top * (32 - y) + bottom * y + 512) >> 10).float()


def _blend_float(taps: list[Tensor], across: Tensor, down: Tensor) -> Tensor:
    """Grey levels, float32 (B, h, w, 3)."""
    x, y = across[..., None], down[..., None]
    a, b, c, d = (tap.float() for tap in taps)
    top, bottom = a + (b - a) * x, c + (d - c) * x
    return top + (bottom - top) * y
