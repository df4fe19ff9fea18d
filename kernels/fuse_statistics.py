"""Batch statistics of the addends of a fused sum; the specification is fastpose.reference.fuse_steps."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import dot, image_offsets, in_layout, is_channels_last, pick
from fastpose.kernels.configs import path_config, statistics_config
from torch import Tensor

MIN_CHUNK, MAX_CHUNKS = (
    256,
    512,
)  # rows of one program; partial results of one image, which one program merges


@triton.jit
def fuse_channel_kernel(
    p_xs,  # (B, C, H, W) each
    p_partial,  # [images, chunks, 2, C] float32: mean and sum of squared distances from it
    rows,  # B * H * W
    CHUNK: tl.constexpr,  # rows of one program, a multiple of BLOCK_ROWS
    C: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Statistics of one chunk of rows of one image, taken around the mean of its first BLOCK_ROWS.

    Traffic: an image is read once; 8 bytes written for each channel and chunk.
    """
    BLOCKS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    i_image = tl.program_id(0) // BLOCKS
    i_chunk = tl.program_id(1)
    p_x = pick(p_xs, i_image)
    o_c = tl.program_id(0) % BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = o_c < C
    o_row = i_chunk * CHUNK + tl.arange(0, BLOCK_ROWS)
    m_x = (o_row < rows)[:, None] & m_c[None, :]
    o_x = image_offsets(o_row[:, None], o_c[None, :], C, PIXELS, CHANNELS_LAST)
    b_x = tl.load(p_x + o_x, mask=m_x, other=0.0).to(tl.float32)  # [BLOCK_ROWS, BLOCK_C]
    b_centre = tl.sum(b_x, 0) / tl.minimum(rows - i_chunk * CHUNK, BLOCK_ROWS).to(tl.float32)  # [BLOCK_C]
    b_sum = tl.zeros([BLOCK_ROWS, BLOCK_C], tl.float32)
    b_square = tl.zeros([BLOCK_ROWS, BLOCK_C], tl.float32)
    for row in tl.range(0, CHUNK, BLOCK_ROWS, num_stages=4):
        o_row = i_chunk * CHUNK + row + tl.arange(0, BLOCK_ROWS)
        m_x = (o_row < rows)[:, None] & m_c[None, :]
        o_x = image_offsets(o_row[:, None], o_c[None, :], C, PIXELS, CHANNELS_LAST)
        b_x = tl.load(p_x + o_x, mask=m_x, other=0.0).to(tl.float32)
        b_x = tl.where(m_x, b_x - b_centre[None, :], 0.0)
        b_sum += b_x
        b_square += b_x * b_x

    b_offset = tl.sum(b_sum, 0) / tl.minimum(rows - i_chunk * CHUNK, CHUNK).to(tl.float32)
    b_square = tl.sum(b_square, 0) - tl.sum(b_sum, 0) * b_offset
    p_out = p_partial + (i_image * tl.num_programs(1) + i_chunk).to(tl.int64) * (2 * C) + o_c
    tl.store(p_out, b_centre + b_offset, mask=m_c)
    tl.store(p_out + C, tl.maximum(b_square, 0.0), mask=m_c)


@triton.jit
def fuse_channel_merge_kernel(
    p_partial,  # [images, chunks, 2, C]
    p_outs,  # [2, C] float32 for each image
    rows,
    chunks,
    CHUNK: tl.constexpr,
    C: tl.constexpr,
    CHUNKS: tl.constexpr,  # the next power of two of chunks
    BLOCK_C: tl.constexpr,
):
    """Mean and biased variance of BLOCK_C channels of one image: the chunks merged in float64.

    Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
    variances, 1979.
    """
    i_image = tl.program_id(1)
    o_c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_chunk = tl.arange(0, CHUNKS)
    mask = (o_chunk < chunks)[:, None] & (o_c < C)[None, :]
    p_in = p_partial + ((i_image * chunks + o_chunk) * (2 * C)).to(tl.int64)[:, None] + o_c[None, :]
    b_mean = tl.load(p_in, mask=mask, other=0.0).to(tl.float64)  # [CHUNKS, BLOCK_C]
    b_square = tl.load(p_in + C, mask=mask, other=0.0).to(tl.float64)
    b_count = tl.maximum(tl.minimum(rows - o_chunk * CHUNK, CHUNK), 0).to(tl.float64)[:, None]
    count = tl.cast(rows, tl.float64)  # rows of 1 are a constant, which has no .to
    b_total = tl.sum(b_mean * b_count, 0) / count  # [BLOCK_C]
    b_apart = b_mean - b_total[None, :]
    b_var = tl.sum(b_square + b_count * b_apart * b_apart, 0) / count
    p_out = pick(p_outs, i_image) + o_c
    tl.store(p_out, b_total.to(tl.float32), mask=o_c < C)
    tl.store(p_out + C, b_var.to(tl.float32), mask=o_c < C)


@triton.jit
def fuse_path_kernel(
    p_mean,  # [INPUTS] float32
    p_cov,  # [INPUTS, INPUTS] float32
    p_weights,  # [OUTPUTS[i], INPUTS] each
    p_partial,  # [column blocks, row blocks, 2, BLOCK_C] float32
    FIRST: tl.constexpr,  # the first row block of each path
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """For BLOCK_C outputs of one path, what BLOCK_N columns add to W m and to the row sums of (W C) * W."""
    i_path = 0
    for i in tl.static_range(1, len(FIRST)):
        i_path += (tl.program_id(1) >= FIRST[i]).to(tl.int32)
    p_weight = pick(p_weights, i_path)
    o_c = (tl.program_id(1) - pick(FIRST, i_path)) * BLOCK_C + tl.arange(0, BLOCK_C)
    m_c = (o_c < pick(OUTPUTS, i_path))[:, None]
    o_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m_n = (o_n < INPUTS)[None, :]
    b_product = tl.zeros([BLOCK_C, BLOCK_N], tl.float32)
    for k in range(0, INPUTS, BLOCK_K):
        o_k = k + tl.arange(0, BLOCK_K)
        m_k = o_k < INPUTS
        b_weight = tl.load(
            p_weight + o_c[:, None] * INPUTS + o_k[None, :], mask=m_c & m_k[None, :], other=0.0
        )
        b_cov = tl.load(p_cov + o_k[:, None] * INPUTS + o_n[None, :], mask=m_k[:, None] & m_n, other=0.0)
        b_product = dot(b_weight.to(tl.float32), b_cov, b_product)
    b_weight = tl.load(p_weight + o_c[:, None] * INPUTS + o_n[None, :], mask=m_c & m_n, other=0.0).to(
        tl.float32
    )
    b_mean = tl.load(p_mean + o_n, mask=o_n < INPUTS, other=0.0)
    i_block = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    p_out = p_partial + i_block * (2 * BLOCK_C) + tl.arange(0, BLOCK_C)
    tl.store(p_out, tl.sum(b_weight * b_mean[None, :], 1))
    tl.store(p_out + BLOCK_C, tl.sum(b_weight * b_product, 1))


@triton.jit
def fuse_path_merge_kernel(
    p_partial,  # [column blocks, row blocks, 2, BLOCK_C]
    p_outs,  # [2, OUTPUTS[i]] float32 each
    FIRST: tl.constexpr,
    OUTPUTS: tl.constexpr,
    COLUMN_BLOCKS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,  # the next power of two of COLUMN_BLOCKS
):
    """Mean and variance of BLOCK_C outputs of one path."""
    i_path = 0
    for i in tl.static_range(1, len(FIRST)):
        i_path += (tl.program_id(0) >= FIRST[i]).to(tl.int32)
    outputs = pick(OUTPUTS, i_path)
    o_c = (tl.program_id(0) - pick(FIRST, i_path)) * BLOCK_C + tl.arange(0, BLOCK_C)
    o_column = tl.arange(0, BLOCK_COLUMNS)
    o_in = (o_column * tl.num_programs(0) + tl.program_id(0))[:, None] * (2 * BLOCK_C)
    p_in = p_partial + o_in + tl.arange(0, BLOCK_C)[None, :]
    mask = (o_column < COLUMN_BLOCKS)[:, None]
    b_mean = tl.sum(tl.load(p_in, mask=mask, other=0.0).to(tl.float64), 0)
    b_var = tl.sum(tl.load(p_in + BLOCK_C, mask=mask, other=0.0).to(tl.float64), 0)
    p_out = pick(p_outs, i_path) + o_c
    tl.store(p_out, b_mean.to(tl.float32), mask=o_c < outputs)
    tl.store(p_out + outputs, tl.maximum(b_var, 0.0).to(tl.float32), mask=o_c < outputs)


def launch_channel_statistics(xs: Sequence[Tensor]) -> list[Tensor]:
    """`channel_statistics` of the reference, (2, C) float32 for each image: two launches for each shape."""
    outs = [torch.empty(2, x.shape[1], dtype=torch.float32, device=x.device) for x in xs]
    for shape in dict.fromkeys(x.shape for x in xs):
        alike = [i for i, x in enumerate(xs) if x.shape == shape]
        _launch_channels([xs[i] for i in alike], [outs[i] for i in alike])
    return outs


def launch_path_statistics(mean: Tensor, cov: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """`path_statistics` of the reference, (2, C) float32 for each weight (C, inputs), in two launches."""
    config = path_config()
    inputs, outputs = len(mean), tuple(weight.shape[0] for weight in weights)
    outs = [mean.new_empty(2, count) for count in outputs]
    if not weights:
        return outs
    blocks = [triton.cdiv(count, config.block_c) for count in outputs]
    columns = triton.cdiv(inputs, config.block_n)
    partial = mean.new_empty(columns, sum(blocks), 2, config.block_c)
    shapes = {"FIRST": (0, *accumulate(blocks[:-1])), "OUTPUTS": outputs, "BLOCK_C": config.block_c}
    with torch.cuda.device_of(mean):
        fuse_path_kernel[(columns, sum(blocks))](
            mean.contiguous(),
            cov.contiguous(),
            tuple(weight.contiguous() for weight in weights),
            partial,
            **shapes,
            INPUTS=inputs,
            BLOCK_N=config.block_n,
            BLOCK_K=config.block_k,
            num_warps=config.num_warps,
        )
        fuse_path_merge_kernel[(sum(blocks),)](
            partial,
            tuple(outs),
            **shapes,
            COLUMN_BLOCKS=columns,
            BLOCK_COLUMNS=triton.next_power_of_2(columns),
            num_warps=1,
        )
    return outs


def _launch_channels(xs: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
    """Images of one shape."""
    channels, layout = xs[0].shape[1], is_channels_last(xs[0])
    rows = xs[0].numel() // max(channels, 1)
    if rows == 0:
        for out in outs:
            out.fill_(float("nan"))
        return
    config = statistics_config(channels)
    chunk = max(MIN_CHUNK, triton.next_power_of_2(triton.cdiv(rows, MAX_CHUNKS)))
    chunks = triton.cdiv(rows, chunk)
    partial = outs[0].new_empty(len(xs), chunks, 2, channels)
    merged = triton.next_power_of_2(chunks)
    block_c = max(4, min(32, 2048 // merged))
    with torch.cuda.device_of(partial):
        fuse_channel_kernel[(len(xs) * triton.cdiv(channels, config.block_c), chunks)](
            tuple(in_layout(x, layout) for x in xs),
            partial,
            rows,
            CHUNK=chunk,
            C=channels,
            PIXELS=xs[0].shape[2] * xs[0].shape[3],
            CHANNELS_LAST=layout,
            BLOCK_C=config.block_c,
            BLOCK_ROWS=config.rows,
            num_warps=config.num_warps,
        )
        fuse_channel_merge_kernel[(triton.cdiv(channels, block_c), len(xs))](
            partial, tuple(outs), rows, chunks, CHUNK=chunk, C=channels, CHUNKS=merged, BLOCK_C=block_c
        )
