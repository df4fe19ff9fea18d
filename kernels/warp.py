"""Crops cut out of uint8 pictures; the specification is fastpose.reference.warp.warp_crops.

What a row and what a column of a tile adds to a position is float64, once for the tile; what is done for each
pixel, once for its three channels, is integers and float32.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import rounded  # type: ignore[import-not-found]
from fastpose.kernels.warp_positions import (  # type: ignore[import-not-found]
    fixed_positions,
    float_positions,
    inverse_row,
)
from torch import Tensor

ROWS, COLUMNS = 16, 32  # of one program's tile: a warp is a row, a thread keeps its column
NUM_WARPS = 4


@triton.jit
def source(p_sizes, p_offsets, pad_width, pad_height, numel, i_crop):
    """Of one picture: its first byte, width, height and bytes of a row; no pixels if it leaves the buffer."""
    width, height = pad_width, pad_height
    if p_sizes is not None:
        width = tl.load(p_sizes + 2 * i_crop).to(tl.int32)
        height = tl.load(p_sizes + 2 * i_crop + 1).to(tl.int32)
    if p_offsets is not None:
        start = tl.load(p_offsets + i_crop).to(tl.int64)
        stride = width.to(tl.int64) * 3
    else:
        width, height = tl.minimum(width, pad_width), tl.minimum(height, pad_height)
        start = i_crop * pad_height * pad_width * 3
        stride = pad_width.to(tl.int64) * 3
    pixels = width.to(tl.int64) * height
    held = (width > 0) & (height > 0) & (start >= 0) & (start <= numel)
    if p_offsets is not None:
        held &= (pixels <= numel) & (start + 3 * pixels <= numel)
    return start, tl.where(held, width, 0), tl.where(held, height, 0), stride


@triton.jit
def inside(o_pixel, side):
    """0 <= o_pixel < side."""
    return o_pixel.to(tl.uint32, bitcast=True) < side.to(tl.uint32, bitcast=True)


@triton.jit
def taps(p_images, picture, row, column, mirrored):
    """Pointers to the pixels at (row, column), to the right, below and below to the right, and their masks.

    Rows and columns count from the corner of the picture, or of the mirrored one.
    """
    start, width, height, stride = picture
    step = tl.where(mirrored, -1, 1)
    column = tl.where(mirrored, width - 1 - column, column)
    p_a = p_images + start + row.to(tl.int64) * stride + column.to(tl.int64) * 3
    p_c = p_a + stride
    m_top, m_bottom = inside(row, height), inside(row + 1, height)
    m_left, m_right = inside(column, width), inside(column + step, width)
    pointers = p_a, p_a + 3 * step, p_c, p_c + 3 * step
    return pointers, (m_top & m_left, m_top & m_right, m_bottom & m_left, m_bottom & m_right)


@triton.jit
def grey_levels(p_tap, m_inside, channel: tl.constexpr):
    """int32; 0 outside."""
    return tl.load(p_tap + channel, mask=m_inside, other=0).to(tl.int32)


@triton.jit
def blend(p_taps, m_taps, channel: tl.constexpr, across, down, FIXED: tl.constexpr):
    """Grey levels, float32: whole ones of weights that are 1024ths, or those of float32 weights."""
    b_a, b_b = grey_levels(p_taps[0], m_taps[0], channel), grey_levels(p_taps[1], m_taps[1], channel)
    b_c, b_d = grey_levels(p_taps[2], m_taps[2], channel), grey_levels(p_taps[3], m_taps[3], channel)
    if FIXED:
        top, bottom = b_a * (32 - across) + b_b * across, b_c * (32 - across) + b_d * across
        return ((top * (32 - down) + bottom * down + 512) >> 10).to(tl.float32)
    else:
        top = b_a.to(tl.float32) + (b_b - b_a).to(tl.float32) * across
        bottom = b_c.to(tl.float32) + (b_d - b_c).to(tl.float32) * across
        return top + (bottom - top) * down


@triton.jit
def finish(b_grey, p_gain, p_shift, scale, bias, DTYPE: tl.constexpr):
    """Colour and normalisation of one channel, rounded to DTYPE."""
    if p_gain is not None:
        b_grey = b_grey * tl.load(p_gain) + tl.load(p_shift)
        b_grey = tl.minimum(tl.maximum(b_grey, 0.0), 255.0)
    if DTYPE == tl.uint8:
        b_value = ((b_grey + 12582912.0) - 12582912.0).to(tl.int32).to(tl.uint8)  # 1.5 * 2^23: ties to even
    else:
        b_value = rounded(b_grey * tl.cast(scale, tl.float32) + tl.cast(bias, tl.float32), DTYPE)
    return b_value


# These change from batch to batch, and must not compile the kernel again.
@triton.jit(do_not_specialize=["numel", "pad_width", "pad_height"])
def warp_fwd_kernel(
    p_images,  # uint8: a flat buffer, or [B, pad_height, pad_width, 3]
    p_matrices,  # [B, 2, 3] float32 or float64, from picture to crop
    p_sizes,  # [B, 2] width, height, or None: all of the padding
    p_offsets,  # [B] first byte of each picture, or None: a padded batch
    p_origins,  # [B, 2] position of each picture's corner, or None: 0
    p_flip,  # [B] uint8, or None
    p_gain,  # [B, 3] float32, or None
    p_shift,  # [B, 3] float32, with p_gain
    p_crops,  # [B, HEIGHT, WIDTH, 3]
    numel: tl.int64,  # bytes of p_images
    pad_width: tl.int32,
    pad_height: tl.int32,
    scales,
    biases,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    FIXED: tl.constexpr,
    REVERSE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """ROWS x COLUMNS pixels of one crop, in OpenCV's fixed point or in float32.

    Traffic: 12 bytes read a pixel, nearly all of them from the cache, and 3 elements written.
    """
    ACROSS: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    TILES: tl.constexpr = ACROSS * ((HEIGHT + ROWS - 1) // ROWS)
    i_crop = (tl.program_id(0) // TILES).to(tl.int64)
    i_tile = tl.program_id(0) % TILES
    o_row = i_tile // ACROSS * ROWS + tl.arange(0, ROWS)  # [ROWS]
    o_column = i_tile % ACROSS * COLUMNS + tl.arange(0, COLUMNS)  # [COLUMNS]

    x, y = o_column.to(tl.float64), o_row.to(tl.float64)
    to_x = inverse_row(p_matrices + 6 * i_crop, 0)
    to_y = inverse_row(p_matrices + 6 * i_crop, 1)
    if FIXED:
        column, across = fixed_positions(to_x[0] * x, to_x[1] * y + to_x[2])
        row, down = fixed_positions(to_y[0] * x, to_y[1] * y + to_y[2])
    else:
        column, across = float_positions(to_x[0] * x, to_x[1] * y + to_x[2])
        row, down = float_positions(to_y[0] * x, to_y[1] * y + to_y[2])
    if p_origins is not None:
        column -= tl.load(p_origins + 2 * i_crop).to(tl.int32)
        row -= tl.load(p_origins + 2 * i_crop + 1).to(tl.int32)
    mirrored = False
    if p_flip is not None:
        mirrored = tl.load(p_flip + i_crop) != 0

    picture = source(p_sizes, p_offsets, pad_width, pad_height, numel, i_crop)
    p_taps, m_taps = taps(p_images, picture, row, column, mirrored)  # [ROWS, COLUMNS] each
    p_pixel = p_crops + (i_crop * HEIGHT + o_row[:, None]) * (3 * WIDTH) + 3 * o_column[None, :]
    m_pixel = (o_row < HEIGHT)[:, None] & (o_column < WIDTH)[None, :]
    for channel in tl.static_range(3):
        o_source = 2 - channel if REVERSE else channel
        b_grey = blend(p_taps, m_taps, o_source, across, down, FIXED)
        o_colour = 3 * i_crop + channel
        gain = p_gain if p_gain is None else p_gain + o_colour
        shift = p_shift if p_shift is None else p_shift + o_colour
        b_value = finish(b_grey, gain, shift, scales[channel], biases[channel], p_crops.dtype.element_ty)
        tl.store(p_pixel + channel, b_value, mask=m_pixel)


class Pictures(NamedTuple):
    """Where the pixels are, as the reference takes it; `sizes`, `origins` integer, `flip` bool."""

    images: Tensor
    sizes: Tensor | None
    offsets: Tensor | None
    origins: Tensor | None
    flip: Tensor | None


def launch_warp_crops(
    pictures: Pictures,
    matrices: Tensor,
    colour: tuple[Tensor, Tensor] | None,
    output_size: tuple[int, int],
    normalisation: tuple[list[float], list[float]],
    dtype: torch.dtype,
    fixed: bool,
    reverse_channels: bool,
) -> Tensor:
    """(B, 3, h, w) in channels_last memory, or (B, h, w, 3) uint8; the arguments are checked already.

    `colour` is gain and shift, `normalisation` scale and bias of each channel.
    """
    width, height = output_size
    images, sizes, offsets, origins, flip = pictures
    pad_height, pad_width = images.shape[1:3] if images.ndim == 4 else (0, 0)
    crops = torch.empty((len(matrices), height, width, 3), dtype=dtype, device=images.device)
    tiles = triton.cdiv(height, ROWS) * triton.cdiv(width, COLUMNS)
    gain, shift = (None, None) if colour is None else (each.float().contiguous() for each in colour)
    if crops.numel() > 0:
        with torch.cuda.device_of(images):
            warp_fwd_kernel[(len(matrices) * tiles,)](
                images.contiguous(),
                matrices.contiguous(),
                *(each if each is None else each.contiguous() for each in (sizes, offsets, origins)),
                None if flip is None else flip.contiguous().view(torch.uint8),
                gain,
                shift,
                crops,
                images.numel(),
                pad_width,
                pad_height,
                *(tuple(each) for each in normalisation),
                WIDTH=width,
                HEIGHT=height,
                FIXED=fixed,
                REVERSE=reverse_channels,
                ROWS=ROWS,
                COLUMNS=COLUMNS,
                num_warps=NUM_WARPS,
                enable_fp_fusion=False,  # a fused multiply-add rounds once where OpenCV rounds twice
            )
    return crops if dtype == torch.uint8 else crops.permute(0, 3, 1, 2)
