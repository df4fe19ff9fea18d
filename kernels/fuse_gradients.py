"""Gradients of the fused sum's inputs; the specification is fastpose.reference.fuse_steps."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import dot, empty_image, image_offsets, in_layout, is_channels_last, rounded
from fastpose.kernels.configs import (
    InputConfig,
    PassConfig,
    capability,
    image_backward_config,
    input_backward_config,
)
from torch import Tensor


@triton.jit
def _add_product(
    b_total,  # [BLOCK_P, BLOCK_N] float32
    p_image,
    o_p,
    m_p,
    p_matrix,  # [C, INPUTS]
    o_n,
    m_n,
    C: tl.constexpr,
    INPUTS: tl.constexpr,
    HW: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """b_total + image @ matrix for some pixels and columns."""
    for first in range(0, C, BLOCK_K):
        o_k = first + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        m_k = o_k < C
        o_left = image_offsets(o_p[:, None], o_k[None, :], C, HW, CHANNELS_LAST)
        b_left = tl.load(p_image + o_left, mask=m_p[:, None] & m_k[None, :], other=0.0)
        o_right = o_k[:, None] * INPUTS + o_n[None, :]
        b_right = tl.load(p_matrix + o_right, mask=m_k[:, None] & m_n[None, :], other=0.0)
        b_total = dot(b_left, b_right, b_total)
    return b_total


@triton.jit
def fuse_input_bwd_kernel(
    p_x,  # (B, INPUTS, H, W), as masked and dx
    p_masked,  # or None
    p_pools,  # (B, C, H, W) for each path
    p_scaled,  # [C, INPUTS] for each path
    p_matrix,  # [INPUTS, INPUTS]
    p_offset,  # [INPUTS] float32
    p_dx,
    pixels,
    WIDTHS: tl.constexpr,
    INPUTS: tl.constexpr,
    HW: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """masked + sum pool @ scaled - x @ matrix - offset of some pixels and channels.

    Traffic for bfloat16: 6 bytes per element of x (4 without masked) and 2 per element of a pool; all but the
    first block of channels find x and the pools in the L2 cache.
    """
    BLOCKS: tl.constexpr = (INPUTS + BLOCK_N - 1) // BLOCK_N
    o_n = (tl.program_id(0) % BLOCKS) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    o_p = (tl.program_id(0) // BLOCKS) * BLOCK_P + tl.arange(0, BLOCK_P)  # [BLOCK_P]
    m_n = o_n < INPUTS
    m_p = o_p < pixels
    b_dx = tl.zeros([BLOCK_P, BLOCK_N], tl.float32)
    b_dx = _add_product(b_dx, p_x, o_p, m_p, p_matrix, o_n, m_n, INPUTS, INPUTS, HW, CHANNELS_LAST, BLOCK_K)
    b_dx = -b_dx - tl.load(p_offset + o_n, mask=m_n, other=0.0)[None, :]
    for i in tl.static_range(len(p_pools)):
        b_dx = _add_product(
            b_dx, p_pools[i], o_p, m_p, p_scaled[i], o_n, m_n, WIDTHS[i], INPUTS, HW, CHANNELS_LAST, BLOCK_K
        )
    o_tile = image_offsets(o_p[:, None], o_n[None, :], INPUTS, HW, CHANNELS_LAST)
    mask = m_p[:, None] & m_n[None, :]
    if p_masked is not None:
        b_dx += tl.load(p_masked + o_tile, mask=mask, other=0.0).to(tl.float32)
    tl.store(p_dx + o_tile, rounded(b_dx, p_dx.dtype.element_ty), mask=mask)


@triton.jit
def fuse_image_bwd_kernel(
    p_masked,  # (B, C, H, W), as all images here
    p_images,
    p_gammas,  # [C] float32 for each image, and so the next four
    p_means,
    p_variances,
    p_dbetas,
    p_dgammas,
    shares,  # 1 / pixels of the statistics, or 0 where they were frozen
    p_dimages,
    pixels,
    eps,
    C: tl.constexpr,
    HW: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """(masked - share dbeta - normalised share dgamma) gamma / std of some pixels, for all images of a row.

    Traffic for bfloat16: 2 bytes per element, and 4 more for each image.
    """
    BLOCKS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    o_c = (tl.program_id(0) % BLOCKS) * BLOCK_C + tl.arange(0, BLOCK_C)  # [BLOCK_C]
    m_c = o_c < C
    o_p = (tl.program_id(0) // BLOCKS) * BLOCK_P + tl.arange(0, BLOCK_P)  # [BLOCK_P]
    o_tile = image_offsets(o_p[:, None], o_c[None, :], C, HW, CHANNELS_LAST)  # [BLOCK_P, BLOCK_C]
    mask = (o_p < pixels)[:, None] & m_c[None, :]
    b_masked = tl.load(p_masked + o_tile, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(len(p_images)):
        b_image = tl.load(p_images[i] + o_tile, mask=mask, other=0.0).to(tl.float32)
        share = tl.cast(shares[i], tl.float32)
        b_var = tl.load(p_variances[i] + o_c, mask=m_c, other=1.0)
        b_r = tl.rsqrt(b_var + tl.cast(eps, tl.float32))
        b_scale = tl.load(p_gammas[i] + o_c, mask=m_c, other=0.0) * b_r
        b_mean = tl.load(p_means[i] + o_c, mask=m_c, other=0.0)
        b_shift = tl.load(p_dbetas[i] + o_c, mask=m_c, other=0.0) * share
        b_slope = tl.load(p_dgammas[i] + o_c, mask=m_c, other=0.0) * share * b_r
        b_dx = b_masked - b_shift[None, :] - (b_image - b_mean[None, :]) * b_slope[None, :]
        b_dx = rounded(b_dx * b_scale[None, :], p_dimages[i].dtype.element_ty)
        tl.store(p_dimages[i] + o_tile, b_dx, mask=mask)


def launch_input_gradient(
    x: Tensor,
    masked: Tensor | None,
    pooled: Sequence[Tensor],
    scaled: Sequence[Tensor],
    matrix: Tensor,
    offset: Tensor,
    config: InputConfig | None = None,
) -> Tensor:
    """`input_gradient` of the reference in one launch; all but offset, which is float32, have the dtype of x.

    The gradient has the layout of x, into which the other images are brought. `config` replaces the tile
    sizes of the table.
    """
    batch, inputs, height, width = x.shape
    last = is_channels_last(x)
    dx = empty_image(x, (batch, inputs, height, width), last)
    if dx.numel() == 0:
        return dx
    config = config or input_backward_config(capability(x.device), inputs, x.dtype, last)
    pixels = batch * height * width
    with torch.cuda.device_of(x):
        fuse_input_bwd_kernel[(triton.cdiv(inputs, config.block_n) * triton.cdiv(pixels, config.pixels),)](
            in_layout(x, last),
            None if masked is None else in_layout(masked, last),
            tuple(in_layout(pool, last) for pool in pooled),
            tuple(weight.contiguous() for weight in scaled),
            matrix.contiguous(),
            offset.contiguous(),
            dx,
            pixels,
            WIDTHS=tuple(pool.shape[1] for pool in pooled),
            INPUTS=inputs,
            HW=height * width,
            CHANNELS_LAST=last,
            BLOCK_P=config.pixels,
            BLOCK_N=config.block_n,
            BLOCK_K=config.block_k,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    return dx


def launch_image_gradients(
    masked: Tensor,
    images: Sequence[Tensor],
    gammas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    dbetas: Sequence[Tensor],
    dgammas: Sequence[Tensor],
    totals: Sequence[int],
    eps: float,
    config: PassConfig | None = None,
) -> list[Tensor]:
    """`image_gradients` of the reference in one launch; the vectors (C,) are float32.

    The gradients have the layout of masked, into which the images are brought. `config` replaces the tile
    sizes of the table.
    """
    batch, channels, height, width = masked.shape
    last = is_channels_last(masked)
    gradients = [empty_image(image, (batch, channels, height, width), last) for image in images]
    if masked.numel() == 0 or not images:
        return gradients
    config = config or image_backward_config(channels)
    pixels = batch * height * width
    vectors = gammas, means, variances, dbetas, dgammas
    with torch.cuda.device_of(masked):
        fuse_image_bwd_kernel[(triton.cdiv(channels, config.block_c) * triton.cdiv(pixels, config.pixels),)](
            in_layout(masked, last),
            tuple(in_layout(image, last) for image in images),
            *(tuple(vector.contiguous() for vector in group) for group in vectors),
            tuple(1.0 / total if total else 0.0 for total in totals),
            tuple(gradients),
            pixels,
            float(eps),
            C=channels,
            HW=height * width,
            CHANNELS_LAST=last,
            BLOCK_P=config.pixels,
            BLOCK_C=config.block_c,
            num_warps=config.num_warps,
        )
    return gradients
