"""One output of HRNet's fused sum; the specification is fastpose.reference.fuse_steps.forward_row."""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import (
    dot,
    empty_image,
    image_offsets,
    in_layout,
    is_channels_last,
    morton_pixel,
    repeat_rows,
    rounded,
)
from fastpose.kernels.configs import ForwardConfig, capability, forward_config
from torch import Tensor


@triton.jit
def normalise(b_z, p_gamma, p_beta, p_mean, p_var, o_c, m_c, eps):
    """(z - mean) gamma / sqrt(var + eps) + beta of channels `o_c`, the columns of z."""
    gamma = tl.load(p_gamma + o_c, mask=m_c, other=0.0).to(tl.float32)  # [BLOCK_C]
    beta = tl.load(p_beta + o_c, mask=m_c, other=0.0).to(tl.float32)
    mean = tl.load(p_mean + o_c, mask=m_c, other=0.0).to(tl.float32)
    var = tl.load(p_var + o_c, mask=m_c, other=1.0).to(tl.float32)
    scale = gamma * tl.rsqrt(var + eps)
    return (b_z - mean[None, :]) * scale[None, :] + beta[None, :]


@triton.jit
def path_product(
    p_x, p_weight, count, i_tile, o_c, m_c,
    LEVEL: tl.constexpr, HELD: tl.constexpr, INPUTS: tl.constexpr, PIXELS: tl.constexpr, WIDTH: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, COARSEST: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """weight @ x at the pixels of level HELD in tile `i_tile`, channels `o_c`; float32.

    Where x is coarser than HELD, since the tile has fewer than 16 pixels of it, its rows repeat.
    """
    ROWS: tl.constexpr = BLOCK_P >> (2 * HELD)
    o_row = i_tile * ROWS + tl.arange(0, ROWS)
    m_row = o_row < (count >> (2 * HELD))
    o_pixel = morton_pixel(o_row >> (2 * (LEVEL - HELD)), COARSEST - LEVEL, WIDTH >> LEVEL)
    b_z = tl.zeros([ROWS, BLOCK_C], tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        o_k = k + tl.arange(0, BLOCK_K)
        m_k = o_k < INPUTS
        o_x = image_offsets(o_pixel[:, None], o_k[None, :], INPUTS, PIXELS >> (2 * LEVEL), CHANNELS_LAST)
        b_x = tl.load(p_x + o_x, mask=m_row[:, None] & m_k[None, :], other=0.0)  # [ROWS, BLOCK_K]
        o_weight = o_c[None, :] * INPUTS + o_k[:, None]
        b_weight = tl.load(p_weight + o_weight, mask=m_k[:, None] & m_c[None, :], other=0.0)
        b_z = dot(b_x, b_weight.to(b_x.dtype), b_z)
    return b_z


@triton.jit
def fuse_fwd_kernel(
    p_identity,  # (B, C, H, W), or None
    p_xs,  # (B, INPUTS[i], H >> LEVELS[i], W >> LEVELS[i]) each
    p_weights,  # [C, INPUTS[i]] each
    p_images,  # (B, C, H, W) each
    p_gammas,  # [C] float32 for each of xs, then of images; as the next three
    p_betas,
    p_means,
    p_vars,
    p_out,  # (B, C, H, W)
    count,  # B * H * W
    eps,
    LEVELS: tl.constexpr,
    HELD: tl.constexpr,  # the levels at which the paths are added up: LEVELS, but at most TOP
    INPUTS: tl.constexpr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,  # H * W
    WIDTH: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    COARSEST: tl.constexpr,  # the highest of LEVELS, or 0
    TOP: tl.constexpr,  # the coarsest level of which the tile has 16 pixels, or COARSEST
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """relu(identity + sum up(BN(weight @ x)) + sum BN(image)) of BLOCK_P pixels and BLOCK_C channels.

    Pixels are in Morton order of level COARSEST, so that a level's sum of paths is expanded by repeating
    rows. Traffic in elements for each pixel: C written, C read for identity and each image, and
    inputs / 4^level read for each path, from the L2 cache once more for each further block of channels.
    """
    eps = tl.cast(eps, tl.float32)
    i_c = tl.program_id(0) % ((C + BLOCK_C - 1) // BLOCK_C)
    i_tile = tl.program_id(0) // ((C + BLOCK_C - 1) // BLOCK_C)
    o_c = i_c * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    b_total = tl.zeros([BLOCK_P >> (2 * TOP), BLOCK_C], tl.float32)
    for step in tl.static_range(TOP + 1):
        if step > 0:
            b_total = repeat_rows(b_total, BLOCK_P >> (2 * (TOP - step + 1)), BLOCK_C)
        for i in tl.static_range(len(p_xs)):
            if HELD[i] == TOP - step:
                b_z = path_product(
                    p_xs[i], p_weights[i], count, i_tile, o_c, m_c, LEVELS[i], HELD[i], INPUTS[i], PIXELS,
                    WIDTH, CHANNELS_LAST, COARSEST, BLOCK_P, BLOCK_C, BLOCK_K,
                )  # fmt: skip
                b_total += normalise(b_z, p_gammas[i], p_betas[i], p_means[i], p_vars[i], o_c, m_c, eps)

    o_morton = i_tile * BLOCK_P + tl.arange(0, BLOCK_P)
    m_out = (o_morton < count)[:, None] & m_c[None, :]
    o_pixel = morton_pixel(o_morton, COARSEST, WIDTH)
    o_out = image_offsets(o_pixel[:, None], o_c[None, :], C, PIXELS, CHANNELS_LAST)  # [BLOCK_P, BLOCK_C]
    if p_identity is not None:
        b_total += tl.load(p_identity + o_out, mask=m_out, other=0.0).to(tl.float32)
    for i in tl.static_range(len(p_images)):
        b_image = tl.load(p_images[i] + o_out, mask=m_out, other=0.0).to(tl.float32)
        b_total += normalise(
            b_image, p_gammas[len(p_xs) + i], p_betas[len(p_xs) + i], p_means[len(p_xs) + i],
            p_vars[len(p_xs) + i], o_c, m_c, eps,
        )  # fmt: skip
    b_out = tl.where(b_total < 0, 0.0, b_total)  # unlike a maximum it lets NaN through
    tl.store(p_out + o_out, rounded(b_out, p_out.dtype.element_ty), mask=m_out)


def launch_forward_row(
    identity: Tensor | None,
    xs: Sequence[Tensor],
    weights: Sequence[Tensor],
    images: Sequence[Tensor],
    gammas: Sequence[Tensor],
    betas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    size: Sequence[int],
    eps: float,
    config: ForwardConfig | None = None,
) -> Tensor:
    """`forward_row` of the reference in one launch; weights (C, inputs), vectors (C,) float32.

    The output has the dtype and layout of the first image argument; the others are brought into that layout.
    """
    first = identity if identity is not None else (*xs, *images)[0]
    channels = weights[0].shape[0] if weights else first.shape[1]
    layout = is_channels_last(first)
    out = empty_image(first, (first.shape[0], channels, size[0], size[1]), layout)
    if out.numel() == 0:
        return out
    levels = tuple((size[0] // x.shape[2]).bit_length() - 1 for x in xs)
    config = config or forward_config(capability(out.device), levels, out.dtype, layout)
    count = out.numel() // channels
    with torch.cuda.device_of(out):
        fuse_fwd_kernel[(triton.cdiv(count, config.pixels) * triton.cdiv(channels, config.block_c),)](
            None if identity is None else in_layout(identity, layout),
            tuple(in_layout(x, layout) for x in xs),
            tuple(weight.contiguous() for weight in weights),
            tuple(in_layout(image, layout) for image in images),
            *(tuple(v.contiguous() for v in vectors) for vectors in (gammas, betas, means, variances)),
            out,
            count,
            float(eps),
            INPUTS=tuple(x.shape[1] for x in xs),
            C=channels,
            PIXELS=size[0] * size[1],
            WIDTH=size[1],
            CHANNELS_LAST=layout,
            **_tiles(levels, config),
        )
    return out


def _tiles(levels: tuple[int, ...], config: ForwardConfig) -> dict[str, Any]:
    """The kernel's arguments that tell how a tile meets the paths, and its options."""
    coarsest = max(levels, default=0)
    top = min(coarsest, (config.pixels.bit_length() - 5) // 2)  # a tile has 16 pixels of it, or more
    return {
        "LEVELS": levels,
        "HELD": tuple(min(level, top) for level in levels),
        "COARSEST": coarsest,
        "TOP": top,
        "BLOCK_P": config.pixels,
        "BLOCK_C": config.block_c,
        "BLOCK_K": config.block_k,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
