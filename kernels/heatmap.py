"""Gaussian target heatmaps; the specification is fastpose.reference.heatmap.gaussian_heatmaps."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # pixels of one program: a 64 x 48 map is three
NUM_WARPS = 4
MAX_REACH = 2**50  # cells, as in the reference: squares of distances stay in float32
MAX_FLOAT32 = torch.finfo(torch.float32).max


@triton.jit
def gaussian_centre(
    position, CELLS: tl.constexpr, PIXELS: tl.constexpr, REACH: tl.constexpr, UNBIASED: tl.constexpr
):
    """Centre of a joint as its nearest cell and the rest, and whether the joint is kept.

    `joint / stride` in float64; rounded, `trunc(joint / stride + 0.5)` with rest 0. The cell stays a float,
    so a coordinate that no integer can hold is only compared; NaN compares false. Cell and rest are float32,
    apart because their sum would lose the digits of the rest.
    """
    reach = tl.full([], REACH, tl.float64)
    centre = position.to(tl.float64) / (tl.full([], PIXELS, tl.float64) / tl.full([], CELLS, tl.float64))
    if UNBIASED:
        inside = (centre - reach < CELLS) & (centre + reach + 1 > -1)
        cell = tl.floor(centre + 0.5)
        rest = tl.where(inside, centre - cell, 0.0).to(tl.float32)
    else:
        cell = centre + 0.5
        cell = tl.where(cell < 0, tl.ceil(cell), tl.floor(cell))
        inside = (cell >= -(reach + 1)) & (cell <= CELLS + reach - 1)
        rest = tl.zeros_like(cell).to(tl.float32)
    return tl.where(inside, cell, 0.0).to(tl.float32), rest, inside


@triton.jit
def gaussian_offset(o_cell, cell, rest):
    """Distance of cells from a centre, float32; exact but for the last subtraction."""
    return (o_cell.to(tl.float32) - cell) - rest


@triton.jit
def gaussian_reach(drawn, REACH: tl.constexpr, UNBIASED: tl.constexpr):
    """Cells farther than this from the centre are zero; below 0 where the joint is not drawn."""
    return tl.where(drawn, float("inf") if UNBIASED else 1.0 * REACH, -1.0)


@triton.jit
def heatmap_fwd_kernel(
    p_joints,  # [B * K, 2] float32 or float64
    p_visible,  # [B * K]
    p_heatmaps,  # [B * K, HEIGHT * WIDTH] float32
    p_weight,  # [B * K] float32
    falloff,  # 1 / (2 sigma²)
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    INPUT_WIDTH: tl.constexpr,
    INPUT_HEIGHT: tl.constexpr,
    REACH: tl.constexpr,
    UNBIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """exp(-falloff (dx² + dy²)) where |dx|, |dy| <= REACH or UNBIASED, else 0; BLOCK pixels of one map.

    Traffic: 4 bytes written per pixel, 12 to 24 read and 4 written per map.
    """
    i_map = tl.program_id(0).to(tl.int64)
    i_block = tl.program_id(1)
    position_x, position_y = tl.load(p_joints + 2 * i_map), tl.load(p_joints + 2 * i_map + 1)
    x, rest_x, inside_x = gaussian_centre(position_x, WIDTH, INPUT_WIDTH, REACH, UNBIASED)
    y, rest_y, inside_y = gaussian_centre(position_y, HEIGHT, INPUT_HEIGHT, REACH, UNBIASED)
    visible = tl.load(p_visible + i_map).to(tl.float32)
    weight = tl.where(inside_x & inside_y, visible, 0.0)
    tl.store(p_weight + i_map, weight, mask=i_block == 0)

    o_pixel = i_block * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    dx = gaussian_offset(o_pixel % WIDTH, x, rest_x)
    dy = gaussian_offset(o_pixel // WIDTH, y, rest_y)
    reach = gaussian_reach(weight > 0.5, REACH, UNBIASED)
    m_near = (tl.abs(dx) <= reach) & (tl.abs(dy) <= reach)
    falloff = tl.cast(falloff, tl.float32)  # Inductor hands Python floats over as float64
    b_value = tl.exp((dx * dx + dy * dy) * (-falloff))
    p_pixel = p_heatmaps + i_map * (HEIGHT * WIDTH) + o_pixel
    tl.store(p_pixel, tl.where(m_near, b_value, 0.0), mask=o_pixel < HEIGHT * WIDTH)


def gaussian_patch(sigma: float, unbiased: bool) -> float:
    """REACH of the kernels: 3 sigma but at most MAX_REACH, which rounded targets cut to whole cells."""
    reach = min(3 * sigma, MAX_REACH)
    return reach if unbiased else int(reach)


def gaussian_falloff(sigma: float) -> float:
    """1 / (2 sigma²) for the kernels, in float64: the square of a small sigma is 0 in float32."""
    return min(0.5 / sigma / sigma, MAX_FLOAT32)


def launch_gaussian_heatmaps(
    joints: Tensor,
    visible: Tensor,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float,
    unbiased: bool = False,
) -> tuple[Tensor, Tensor]:
    """Heatmaps (B, K, height, width) and weight (B, K), both float32, on the device of `joints`.

    The arguments are those of the reference and already checked: joints (B, K, 2) float32 or float64 in input
    pixels, visible (B, K), sizes (width, height). No tensor is looked at from the host.
    """
    batch, count = visible.shape
    width, height = heatmap_size
    heatmaps = torch.empty((batch, count, height, width), device=joints.device)
    weight = torch.empty((batch, count), device=joints.device)
    if weight.numel() == 0:
        return heatmaps, weight
    grid = (batch * count, triton.cdiv(height * width, BLOCK))
    with torch.cuda.device_of(joints):
        heatmap_fwd_kernel[grid](
            joints.contiguous(),
            visible.to(torch.float32).contiguous(),
            heatmaps,
            weight,
            gaussian_falloff(sigma),
            WIDTH=width,
            HEIGHT=height,
            INPUT_WIDTH=input_size[0],
            INPUT_HEIGHT=input_size[1],
            REACH=gaussian_patch(sigma, unbiased),
            UNBIASED=unbiased,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
    return heatmaps, weight
