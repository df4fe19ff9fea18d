"""Gaussian target heatmaps; the specification is fastpose.reference.heatmap.gaussian_heatmaps."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024  # pixels of one program: a 64 x 48 map is three
NUM_WARPS = 4


@triton.jit
def _centre(p_joint, CELLS: tl.constexpr, PIXELS: tl.constexpr, RADIUS: tl.constexpr):
    """Centre cell, `trunc(joint / stride + 0.5)` in float64, and whether its patch can touch the map.

    The cell stays a float, so a coordinate that no integer can hold is only compared; NaN compares false.
    """
    stride = tl.full([], PIXELS, tl.float64) / tl.full([], CELLS, tl.float64)
    cell = tl.load(p_joint).to(tl.float64) / stride + 0.5
    cell = tl.where(cell < 0, tl.ceil(cell), tl.floor(cell))
    inside = (cell >= -(RADIUS + 1)) & (cell <= CELLS + RADIUS - 1)
    return tl.where(inside, cell, 0.0).to(tl.float32), inside


@triton.jit
def heatmap_fwd_kernel(
    p_joints,  # [B * K, 2] float32 or float64
    p_visible,  # [B * K]
    p_heatmaps,  # [B * K, HEIGHT * WIDTH] float32
    p_weight,  # [B * K] float32
    sigma,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    INPUT_WIDTH: tl.constexpr,
    INPUT_HEIGHT: tl.constexpr,
    RADIUS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """exp(-(dx² + dy²) / (2 sigma²)) where |dx|, |dy| <= RADIUS, else 0; BLOCK pixels of one map.

    Traffic: 4 bytes written per pixel, 12 to 24 read and 4 written per map.
    """
    i_map = tl.program_id(0).to(tl.int64)
    i_block = tl.program_id(1)
    x, inside_x = _centre(p_joints + 2 * i_map, WIDTH, INPUT_WIDTH, RADIUS)
    y, inside_y = _centre(p_joints + 2 * i_map + 1, HEIGHT, INPUT_HEIGHT, RADIUS)
    visible = tl.load(p_visible + i_map).to(tl.float32)
    weight = tl.where(inside_x & inside_y, visible, 0.0)
    tl.store(p_weight + i_map, weight, mask=i_block == 0)

    o_pixel = i_block * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    dx = (o_pixel % WIDTH).to(tl.float32) - x
    dy = (o_pixel // WIDTH).to(tl.float32) - y
    reach = tl.where(weight > 0.5, 1.0 * RADIUS, -1.0)
    m_near = (tl.abs(dx) <= reach) & (tl.abs(dy) <= reach)
    sigma = tl.cast(sigma, tl.float32)  # Inductor hands Python floats over as float64
    b_value = tl.exp((dx * dx + dy * dy) * (-0.5 / (sigma * sigma)))
    p_pixel = p_heatmaps + i_map * (HEIGHT * WIDTH) + o_pixel
    tl.store(p_pixel, tl.where(m_near, b_value, 0.0), mask=o_pixel < HEIGHT * WIDTH)


def launch_gaussian_heatmaps(
    joints: Tensor,
    visible: Tensor,
    heatmap_size: tuple[int, int],
    input_size: tuple[int, int],
    sigma: float,
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
            float(sigma),
            WIDTH=width,
            HEIGHT=height,
            INPUT_WIDTH=input_size[0],
            INPUT_HEIGHT=input_size[1],
            RADIUS=int(3 * sigma),
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
    return heatmaps, weight
