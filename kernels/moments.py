"""Moments over pixels of one image and of two; the specification is fastpose.reference.fuse_steps."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import is_channels_last, pick
from fastpose.kernels.configs import MomentsConfig, capability, moments_config
from fastpose.kernels.pixel_products import chunk_sum, finish_steps, launch_products, starts
from torch import Tensor


@triton.jit
def fuse_covariance_kernel(
    p_products,  # [chunks, TILES, TILES, BLOCK, BLOCK]
    p_sums,  # [chunks, TILES, BLOCK]
    p_mean,  # [C]
    p_cov,  # [C, C]
    rows,
    chunks,
    C: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,  # times CHUNKS are the chunks, or more
    CHUNKS: tl.constexpr,
):
    """One row of the covariance, COLUMNS of it, on and right of the diagonal; mirrored below it."""
    i_row = tl.program_id(0)
    i_column = tl.program_id(1) * COLUMNS
    if i_column + COLUMNS <= i_row:
        return
    o_column = i_column + tl.arange(0, COLUMNS)
    o_tile = (i_row // BLOCK) * TILES + o_column // BLOCK
    o_product = (o_tile * BLOCK + i_row % BLOCK) * BLOCK + o_column % BLOCK
    m_column = (o_column >= i_row) & (o_column < C)
    count = tl.cast(rows, tl.float64)  # rows of 1 are a constant, which has no .to
    b_product = chunk_sum(
        p_products, o_product, m_column, TILES * TILES * BLOCK * BLOCK, chunks, STEPS, CHUNKS, COLUMNS
    )
    b_mean = chunk_sum(p_sums, o_column, m_column, TILES * BLOCK, chunks, STEPS, CHUNKS, COLUMNS) / count
    o_one = i_row + tl.arange(0, 1)
    mean = tl.sum(chunk_sum(p_sums, o_one, o_one < C, TILES * BLOCK, chunks, STEPS, CHUNKS, 1), 0) / count
    b_cov = b_product / count - mean * b_mean
    b_cov = tl.where(o_column == i_row, tl.maximum(b_cov, 0.0), b_cov).to(tl.float32)
    tl.store(p_cov + i_row * C + o_column, b_cov, mask=m_column)
    tl.store(p_cov + o_column * C + i_row, b_cov, mask=m_column)
    tl.store(p_mean + o_column, b_mean.to(tl.float32), mask=o_column == i_row)


@triton.jit
def fuse_cross_kernel(
    p_products,  # [chunks, left tiles, RIGHT_TILES, BLOCK, BLOCK]
    p_sums,  # [chunks, left tiles, BLOCK]
    p_mean,  # [INPUTS]
    p_weights,  # [OUTPUTS[i], INPUTS] each
    p_means,  # [OUTPUTS[i]] each
    p_vars,
    p_crosses,  # [OUTPUTS[i], INPUTS] float32 each
    p_dgammas,  # [OUTPUTS[i]] float32 each
    chunks,
    eps,
    FIRST: tl.constexpr,  # the first tile of each path
    FIRST_ROW: tl.constexpr,  # the first program of each path
    TILES: tl.constexpr,  # of all paths
    INPUTS: tl.constexpr,
    BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr,  # the next power of two of INPUTS
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """One output channel of one path: its row of the centred products and its dgamma, finished in float64."""
    RIGHT_TILES: tl.constexpr = (INPUTS + BLOCK - 1) // BLOCK
    i_path = 0
    for i in tl.static_range(1, len(FIRST_ROW)):
        i_path += (tl.program_id(0) >= FIRST_ROW[i]).to(tl.int32)
    i_row = tl.program_id(0) - pick(FIRST_ROW, i_path)
    tile = pick(FIRST, i_path) + i_row // BLOCK
    o_column = tl.arange(0, COLUMNS)
    m_column = o_column < INPUTS
    o_product = ((tile * RIGHT_TILES + o_column // BLOCK) * BLOCK + i_row % BLOCK) * BLOCK + o_column % BLOCK
    step = TILES * RIGHT_TILES * BLOCK * BLOCK
    b_cross = chunk_sum(p_products, o_product, m_column, step, chunks, STEPS, CHUNKS, COLUMNS)
    o_sum = tile * BLOCK + i_row % BLOCK + tl.arange(0, 1)
    total = tl.sum(chunk_sum(p_sums, o_sum, o_sum >= 0, TILES * BLOCK, chunks, STEPS, CHUNKS, 1), 0)
    b_mean = tl.load(p_mean + o_column, mask=m_column, other=0.0).to(tl.float64)
    o_weight = i_row * INPUTS + o_column
    b_weight = tl.load(pick(p_weights, i_path) + o_weight, mask=m_column, other=0.0).to(tl.float64)
    mean = tl.load(pick(p_means, i_path) + i_row).to(tl.float64)
    var = tl.load(pick(p_vars, i_path) + i_row).to(tl.float64)
    b_cross -= total * b_mean
    off_centre = total * (tl.sum(b_weight * b_mean, 0) - mean)
    dgamma = (tl.sum(b_cross * b_weight, 0) + off_centre) / tl.sqrt(var + tl.cast(eps, tl.float32))
    tl.store(pick(p_crosses, i_path) + o_weight, b_cross.to(tl.float32), mask=m_column)
    tl.store(pick(p_dgammas, i_path) + i_row, dgamma.to(tl.float32))


def launch_input_moments(x: Tensor, config: MomentsConfig | None = None) -> tuple[Tensor, Tensor]:
    """`input_moments` of the reference in two launches: mean (C,) and covariance (C, C), float32."""
    channels, rows = x.shape[1], x.numel() // max(x.shape[1], 1)
    config = config or moments_config(capability(x.device), channels, x.dtype, is_channels_last(x))
    mean = torch.empty(channels, dtype=torch.float32, device=x.device)
    cov = torch.empty(channels, channels, dtype=torch.float32, device=x.device)
    if rows == 0:
        return mean.fill_(float("nan")), cov.fill_(float("nan"))
    with torch.cuda.device_of(x):
        products, sums = launch_products([x], x, True, config)
        columns = _finish_columns(channels, len(products))
        fuse_covariance_kernel[(channels, triton.cdiv(channels, columns))](
            products,
            sums,
            mean,
            cov,
            rows,
            len(products),
            C=channels,
            TILES=products.shape[2],
            BLOCK=config.block,
            COLUMNS=columns,
            **finish_steps(len(products), columns),
        )
    return mean, cov


def launch_cross_moments(
    x: Tensor,
    mean: Tensor,
    pooled: Sequence[Tensor],
    weights: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    eps: float,
    config: MomentsConfig | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """`cross_moments` of the reference in two launches for all paths; results float32."""
    inputs = x.shape[1]
    outputs = [p.shape[1] for p in pooled]
    crosses = [mean.new_empty(count, inputs) for count in outputs]
    dgammas = [mean.new_empty(count) for count in outputs]
    if x.numel() == 0 or not outputs:
        return [cross.zero_() for cross in crosses], [dgamma.zero_() for dgamma in dgammas]
    config = config or moments_config(capability(x.device), inputs, x.dtype, is_channels_last(x))
    columns = triton.next_power_of_2(inputs)
    with torch.cuda.device_of(x):
        products, sums = launch_products(pooled, x, False, config)
        fuse_cross_kernel[(sum(outputs),)](
            products,
            sums,
            mean.contiguous(),
            *(tuple(v.contiguous() for v in values) for values in (weights, means, variances)),
            tuple(crosses),
            tuple(dgammas),
            len(products),
            float(eps),
            FIRST=starts([triton.cdiv(count, config.block) for count in outputs]),
            FIRST_ROW=starts(outputs),
            TILES=products.shape[1],
            INPUTS=inputs,
            BLOCK=config.block,
            COLUMNS=columns,
            **finish_steps(len(products), columns),
        )
    return crosses, dgammas


def _finish_columns(channels: int, chunks: int) -> int:
    """Columns of a finishing program: 1024 at most, with all chunks 4096 numbers, if it takes so many."""
    return max(32, min(triton.next_power_of_2(channels), 1024, 4096 // triton.next_power_of_2(chunks)))
