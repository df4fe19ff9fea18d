"""Backward passes of the fused sum over images; the specification is fastpose.reference.fuse_steps."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import (
    add_rows,
    empty_image,
    image_offsets,
    in_layout,
    is_channels_last,
    morton_pixel,
    rounded,
)
from fastpose.kernels.configs import PassConfig, row_backward_config
from torch import Tensor

PROGRAMS = 512  # of the pass at most: about four for each SM, all at once, and few sums to add
SUM_PARTS = 256  # read at once when they are added
SUM_CHANNELS = 16
SUM_WARPS = 4


@triton.jit
def fuse_row_bwd_kernel(
    p_grad,  # (B, C, HEIGHT, WIDTH), as all images here
    p_output,
    p_images,  # one for each path that only passes a BatchNorm
    p_means,  # [C] float32 each
    p_masked,
    p_pools,  # (B, C, HEIGHT >> l, WIDTH >> l) for each l of LEVELS
    p_partials,  # [1 + images, programs, C] float32
    pixels,
    C: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    LEVELS: tl.constexpr,
    COARSEST: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    STATS: tl.constexpr,
):
    """Masked gradient, its pools, and the sums of `masked` and of `masked * (image - mean)` of some pixels.

    Traffic for bfloat16: 6 bytes per element, 2 more for each image, 2 / 4^l for each pool.
    """
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)  # [BLOCK_C]
    m_c = o_c < C
    i_part = tl.program_id(1)
    o_stat = tl.arange(0, STATS)  # [STATS]
    b_sums = tl.zeros([STATS, BLOCK_C], tl.float32)
    for i_tile in range(TILES):
        first = (i_part * TILES + i_tile) * BLOCK_P
        o_p = first + tl.arange(0, BLOCK_P)  # [BLOCK_P] in Morton order
        o_pixel = morton_pixel(o_p, COARSEST, WIDTH)
        o_tile = image_offsets(o_pixel[:, None], o_c[None, :], C, HEIGHT * WIDTH, CHANNELS_LAST)
        mask = (o_p < pixels)[:, None] & m_c[None, :]
        b_grad = tl.load(p_grad + o_tile, mask=mask, other=0.0)
        b_output = tl.load(p_output + o_tile, mask=mask, other=0.0)
        b_masked = tl.where(b_output > 0, b_grad, tl.zeros_like(b_grad))
        tl.store(p_masked + o_tile, b_masked, mask=mask)
        b_pool = b_masked.to(tl.float32)
        b_sums += tl.where(o_stat[:, None] == 0, tl.sum(b_pool, axis=0)[None, :], 0.0)
        for i in tl.static_range(len(p_images)):
            b_mean = tl.load(p_means[i] + o_c, mask=m_c, other=0.0)
            b_image = tl.load(p_images[i] + o_tile, mask=mask, other=0.0).to(tl.float32)
            b_product = tl.sum(b_pool * (b_image - b_mean[None, :]), axis=0)
            b_sums += tl.where(o_stat[:, None] == i + 1, b_product[None, :], 0.0)
        for level in tl.static_range(1, COARSEST + 1):
            b_pool = add_rows(b_pool, BLOCK_P >> (2 * level - 2), BLOCK_C)
            for i in tl.static_range(len(LEVELS)):
                if LEVELS[i] == level:
                    o_q = (first >> (2 * level)) + tl.arange(0, BLOCK_P >> (2 * level))
                    mask = (o_q < pixels >> (2 * level))[:, None] & m_c[None, :]
                    o_q = morton_pixel(o_q, COARSEST - level, WIDTH >> level)
                    o_pool = image_offsets(
                        o_q[:, None], o_c[None, :], C, (HEIGHT * WIDTH) >> (2 * level), CHANNELS_LAST
                    )
                    tl.store(p_pools[i] + o_pool, rounded(b_pool, p_pools[i].dtype.element_ty), mask=mask)
    o_partial = (o_stat.to(tl.int64) * tl.num_programs(1) + i_part) * C  # [STATS]
    m_stat = o_stat < len(p_images) + 1
    tl.store(p_partials + o_partial[:, None] + o_c[None, :], b_sums, mask=m_stat[:, None] & m_c[None, :])


@triton.jit
def fuse_row_sum_kernel(
    p_partials,  # [1 + images, parts, C] float32
    p_variances,  # [C] float32 for each image
    p_dbeta,  # [C] float32
    p_dgammas,  # [images, C] float32
    parts,
    eps,
    C: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Adds the partial sums in their order, in float64, and divides by the standard deviation."""
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)  # [BLOCK_C]
    m_c = o_c < C
    i_stat = tl.program_id(1)
    b_sums = tl.zeros([BLOCK_S, BLOCK_C], tl.float64)
    for i in range(STEPS):
        o_s = i * BLOCK_S + tl.arange(0, BLOCK_S)  # [BLOCK_S]
        o_partial = (i_stat.to(tl.int64) * parts + o_s) * C
        mask = (o_s < parts)[:, None] & m_c[None, :]
        b_part = tl.load(p_partials + o_partial[:, None] + o_c[None, :], mask=mask, other=0.0)
        b_sums += b_part.to(tl.float64)
    b_sum = tl.sum(b_sums, axis=0).to(tl.float32)
    if i_stat == 0:
        tl.store(p_dbeta + o_c, b_sum, mask=m_c)
    for i in tl.static_range(len(p_variances)):
        if i_stat == i + 1:
            b_var = tl.load(p_variances[i] + o_c, mask=m_c, other=1.0)
            b_dgamma = b_sum * tl.rsqrt(b_var + tl.cast(eps, tl.float32))
            tl.store(p_dgammas + i * C + o_c, b_dgamma, mask=m_c)


def launch_backward_row(
    grad: Tensor,
    output: Tensor,
    images: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    levels: Sequence[int],
    eps: float,
    config: PassConfig | None = None,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """`backward_row` of the reference in two launches; H and W are multiples of 2^l for each of the levels.

    The images have the dtype and layout of grad, into whose layout the others are brought; means, variances
    (C,), dbeta and dgammas are float32. `config` replaces the tile sizes of the table.
    """
    batch, channels, height, width = grad.shape
    last, coarsest = is_channels_last(grad), max(levels, default=0)
    masked = empty_image(grad, (batch, channels, height, width), last)
    pools = [empty_image(grad, (batch, channels, height >> l, width >> l), last) for l in levels]
    if masked.numel() == 0:
        shapes = (channels,), (len(images), channels)
        return masked, pools, *(torch.zeros(shape, device=grad.device) for shape in shapes)
    config = config or row_backward_config(channels, coarsest, len(images), last)
    pixels, blocks = batch * height * width, triton.cdiv(channels, config.block_c)
    tiles = triton.cdiv(pixels, config.pixels)
    each = triton.cdiv(tiles, max(PROGRAMS // blocks, 1))
    partials = torch.empty((1 + len(images), triton.cdiv(tiles, each), channels), device=grad.device)
    with torch.cuda.device_of(grad):
        fuse_row_bwd_kernel[(blocks, partials.shape[1])](
            in_layout(grad, last),
            in_layout(output, last),
            tuple(in_layout(image, last) for image in images),
            tuple(mean.contiguous() for mean in means),
            masked,
            tuple(pools),
            partials,
            pixels,
            C=channels,
            HEIGHT=height,
            WIDTH=width,
            LEVELS=tuple(levels),
            COARSEST=coarsest,
            CHANNELS_LAST=last,
            TILES=each,
            BLOCK_P=config.pixels,
            BLOCK_C=config.block_c,
            STATS=triton.next_power_of_2(1 + len(images)),
            num_warps=config.num_warps,
        )
    return masked, pools, *_launch_sums(partials, variances, eps)


def _launch_sums(partials: Tensor, variances: Sequence[Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """dbeta (C,) and dgammas (images, C)."""
    stats, parts, channels = partials.shape
    dbeta, dgammas = partials.new_empty(channels), partials.new_empty(stats - 1, channels)
    with torch.cuda.device_of(partials):
        fuse_row_sum_kernel[(triton.cdiv(channels, SUM_CHANNELS), stats)](
            partials,
            tuple(var.contiguous() for var in variances),
            dbeta,
            dgammas,
            parts,
            float(eps),
            C=channels,
            STEPS=triton.cdiv(parts, SUM_PARTS),
            BLOCK_S=SUM_PARTS,
            BLOCK_C=SUM_CHANNELS,
            num_warps=SUM_WARPS,
        )
    return dbeta, dgammas
