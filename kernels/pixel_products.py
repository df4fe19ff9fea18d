"""Sums over pixels of the products of two images' channels, chunk by chunk, and how chunks are added."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import dot, image_offsets, in_layout, is_channels_last, pick
from fastpose.kernels.configs import MomentsConfig
from torch import Tensor

PART = 256  # rows: 16 steps of a tensor core in bfloat16


@triton.jit
def fuse_product_kernel(
    p_lefts,  # (B, LEFTS[i], H, W) each
    p_right,  # (B, RIGHT, H, W)
    p_products,  # [chunks, left tiles, RIGHT_TILES, BLOCK, BLOCK] float32
    p_sums,  # [chunks, left tiles, BLOCK] float32
    rows,  # B * H * W
    CHUNK: tl.constexpr,  # rows of one program, a multiple of PART
    PART: tl.constexpr,  # rows added up before they join the chunk's sums, a multiple of BLOCK_ROWS
    LEFTS: tl.constexpr,
    FIRST: tl.constexpr,  # the first tile of each left
    TILES: tl.constexpr,  # of all lefts
    RIGHT: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    SYMMETRIC: tl.constexpr,  # left and right are one image, so tiles below the diagonal are left out
    REUSE: tl.constexpr,  # and it has one tile, which is loaded once
    BLOCK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Over one chunk of rows: left^T @ right, a tile of BLOCK x BLOCK, and the sums of left.

    Sums grow in two stages: tensor cores cut off what a long sum cannot hold, always towards zero.
    Traffic: an image is read once from memory and once more from the L2 cache for each further tile of the
    other one; 4 BLOCK² bytes written per tile and chunk.
    """
    RIGHT_TILES: tl.constexpr = (RIGHT + BLOCK - 1) // BLOCK
    i_chunk = tl.program_id(0) // (TILES * RIGHT_TILES)  # a grid's second side ends at 65535
    i_left = tl.program_id(0) // RIGHT_TILES % TILES
    i_right = tl.program_id(0) % RIGHT_TILES
    if SYMMETRIC:
        if i_left > i_right:
            return
    i_path = 0
    for i in tl.static_range(1, len(FIRST)):
        i_path += (i_left >= FIRST[i]).to(tl.int32)
    p_left, width = pick(p_lefts, i_path), pick(LEFTS, i_path)
    o_left = (i_left - pick(FIRST, i_path)) * BLOCK + tl.arange(0, BLOCK)
    o_right = i_right * BLOCK + tl.arange(0, BLOCK)
    m_left, m_right = o_left < width, o_right < RIGHT
    b_products = tl.zeros([BLOCK, BLOCK], tl.float32)
    b_sum = tl.zeros([BLOCK_ROWS, BLOCK], tl.float32)
    b_sums = tl.zeros([BLOCK_ROWS, BLOCK], tl.float32)
    for part in tl.range(0, CHUNK, PART, flatten=True):
        b_product = tl.zeros([BLOCK, BLOCK], tl.float32)
        for row in range(0, PART, BLOCK_ROWS):
            o_row = i_chunk * CHUNK + part + row + tl.arange(0, BLOCK_ROWS)
            m_row = (o_row < rows)[:, None]
            o_block = image_offsets(o_row[:, None], o_left[None, :], width, PIXELS, CHANNELS_LAST)
            b_left = tl.load(p_left + o_block, mask=m_row & m_left[None, :], other=0.0)  # [BLOCK_ROWS, BLOCK]
            if REUSE:
                b_right = b_left
            else:
                o_block = image_offsets(o_row[:, None], o_right[None, :], RIGHT, PIXELS, CHANNELS_LAST)
                b_right = tl.load(p_right + o_block, mask=m_row & m_right[None, :], other=0.0)
            b_product = dot(tl.trans(b_left), b_right, b_product)
            b_sum += b_left.to(tl.float32)
        b_products += b_product
        if p_right.dtype.element_ty == tl.float32:  # of shorter numbers a column's sum is all but exact
            b_sums += b_sum
            b_sum = tl.zeros([BLOCK_ROWS, BLOCK], tl.float32)

    o_tile = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    tl.store(p_products + tl.program_id(0).to(tl.int64) * (BLOCK * BLOCK) + o_tile, b_products)
    if i_right == RIGHT_TILES - 1:
        o_sums = (i_chunk.to(tl.int64) * TILES + i_left) * BLOCK + tl.arange(0, BLOCK)
        tl.store(p_sums + o_sums, tl.sum(b_sums + b_sum, 0))


@triton.jit
def chunk_sum(
    p_partial,
    o_column,
    m_column,
    step,
    chunks,
    STEPS: tl.constexpr,
    CHUNKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum over all chunks, `step` elements apart, of columns `o_column`: [COLUMNS] float64, fixed order."""
    b_sum = tl.zeros([CHUNKS, COLUMNS], tl.float64)
    for i in range(STEPS):
        o_chunk = i * CHUNKS + tl.arange(0, CHUNKS)
        m_chunk = (o_chunk < chunks)[:, None] & m_column[None, :]
        p_block = p_partial + o_chunk.to(tl.int64)[:, None] * step + o_column[None, :]
        b_sum += tl.load(p_block, mask=m_chunk, other=0.0).to(tl.float64)
    return tl.sum(b_sum, 0)


def launch_products(
    lefts: Sequence[Tensor], right: Tensor, symmetric: bool, config: MomentsConfig
) -> tuple[Tensor, Tensor]:
    """Products (chunks, left tiles, right tiles, block, block), sums (chunks, left tiles, block); float32."""
    widths = [left.shape[1] for left in lefts]
    tiles = [triton.cdiv(width, config.block) for width in widths]
    right_tiles = triton.cdiv(right.shape[1], config.block)
    programs = sum(tiles) * (right_tiles + symmetric) // (1 + symmetric)
    rows = right.numel() // right.shape[1]
    chunk = config.chunk(rows, programs)
    products = right.new_empty(
        triton.cdiv(rows, chunk), sum(tiles), right_tiles, config.block, config.block, dtype=torch.float32
    )
    sums = products.new_empty(*products.shape[:2], config.block)
    layout = is_channels_last(right)
    fuse_product_kernel[(sum(tiles) * right_tiles * len(products),)](
        tuple(in_layout(left, layout) for left in lefts),
        in_layout(right, layout),
        products,
        sums,
        rows,
        CHUNK=chunk,
        PART=max(min(chunk, PART), config.rows),
        LEFTS=tuple(widths),
        FIRST=starts(tiles),
        TILES=sum(tiles),
        RIGHT=right.shape[1],
        PIXELS=right.shape[2] * right.shape[3],
        CHANNELS_LAST=layout,
        SYMMETRIC=symmetric,
        REUSE=symmetric and right_tiles == 1 and config.reuse,
        BLOCK=config.block,
        BLOCK_ROWS=config.rows,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return products, sums


def starts(counts: Sequence[int]) -> tuple[int, ...]:
    """Where each of consecutive runs of these lengths begins."""
    return (0, *accumulate(counts[:-1]))


def finish_steps(chunks: int, columns: int) -> dict[str, int]:
    """Chunks that a finishing program adds at once, how many times it does, and its warps."""
    block = min(triton.next_power_of_2(chunks), max(4096 // columns, 1))
    warps = min(max(columns // 512, 4), 32)
    return {"STEPS": triton.cdiv(chunks, block), "CHUNKS": block, "num_warps": warps}
