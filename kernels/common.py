"""What several kernels share: where a pixel lies in memory, and pixels in the order of their coarser pixels.

An image (B, C, H, W) is read as a matrix with a row for each pixel, numbered row by row, and a column for
each channel. Pixels are counted in 32 bits and offsets into memory in 64: `check_size`.

Morton order of level L numbers the pixels of a grid block by block, in blocks of 2^L x 2^L that follow each
other row by row, and inside a block along a Z curve. Number p then lies in number p >> 2l of the grid that is
2^l coarser, numbered in Morton order of level L - l: four consecutive pixels share one coarser pixel. Level 0
is the row-by-row order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_PIXELS = 2**31 - 2**23  # of a batch; the last program may count 2^22 beyond it
MAX_CHANNELS = 2**15  # a channel squared is counted in 32 bits too
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(b_a, b_b, b_sum):
    """b_sum + b_a @ b_b in float32, without TF32.

    The interpreter cannot multiply bfloat16; as float32 the products are those of a tensor core.
    """
    if INTERPRETED:
        return tl.dot(b_a.to(tl.float32), b_b.to(tl.float32), b_sum, input_precision="ieee")
    else:
        return tl.dot(b_a, b_b, b_sum, input_precision="ieee")


@triton.jit
def rounded(b_x, DTYPE: tl.constexpr):
    """float32 -> DTYPE, to the nearest, ties to even; the interpreter alone would cut bfloat16 off."""
    if INTERPRETED and DTYPE == tl.bfloat16:
        b_bits = b_x.to(tl.uint32, bitcast=True)
        b_near = (b_bits + 0x7FFF + ((b_bits >> 16) & 1)) & 0xFFFF0000
        b_x = tl.where(b_x == b_x, b_near.to(tl.float32, bitcast=True), b_x)
    return b_x.to(DTYPE)


@triton.jit
def image_offsets(o_pixel, o_c, C, PIXELS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Offsets of pixels `o_pixel` (row by row over the batch) and channels `o_c`, which broadcast; int64.

    PIXELS is H * W, those of one image of the batch.
    """
    if CHANNELS_LAST:
        return o_pixel.to(tl.int64) * C + o_c
    else:
        return (o_pixel // PIXELS).to(tl.int64) * C * PIXELS + o_pixel % PIXELS + o_c * PIXELS


@triton.jit
def morton_pixel(o_morton, LEVEL: tl.constexpr, WIDTH: tl.constexpr):
    """Number in Morton order of level LEVEL -> number row by row, in a batch of grids WIDTH wide."""
    if LEVEL == 0:
        return o_morton
    o_block = o_morton >> (2 * LEVEL)
    row = (o_block // (WIDTH >> LEVEL)) << LEVEL
    column = (o_block % (WIDTH >> LEVEL)) << LEVEL
    for bit in tl.static_range(LEVEL):
        column += ((o_morton >> (2 * bit)) & 1) << bit
        row += ((o_morton >> (2 * bit + 1)) & 1) << bit
    return row * WIDTH + column


@triton.jit
def repeat_rows(b_x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] -> [4 * ROWS, COLUMNS], each row four times: nearest upsampling in Morton order."""
    b_x = tl.broadcast_to(tl.expand_dims(b_x, 1), (ROWS, 4, COLUMNS))
    return tl.reshape(b_x, (4 * ROWS, COLUMNS))


@triton.jit
def add_rows(b_x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS] -> [ROWS / 4, COLUMNS], sums of four rows each: sum-pooling in Morton order."""
    return tl.sum(tl.reshape(b_x, (ROWS // 4, 4, COLUMNS)), axis=1)


@triton.jit
def pick(values, index):
    """Entry number `index`, known only when the kernel runs, of a tuple of pointers or of integers."""
    chosen = values[0]
    for i in tl.static_range(1, len(values)):
        chosen = tl.where(index == i, values[i], chosen)
    return chosen


def is_channels_last(x: Tensor) -> bool:
    """Whether a launch whose first image is `x` works in channels_last; every other layout becomes NCHW."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def in_layout(x: Tensor, channels_last: bool) -> Tensor:
    """`x` itself, or a copy where it has another layout; ValueError where the kernels cannot count it."""
    check_size(tuple(x.shape), channels_last)
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def empty_image(like: Tensor, shape: tuple[int, int, int, int], channels_last: bool) -> Tensor:
    """An uninitialised image with the dtype and device of `like`; ValueError as `in_layout`."""
    check_size(shape, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def check_size(shape: tuple[int, ...], channels_last: bool) -> None:
    """ValueError where images of this shape have numbers that do not fit the kernels' 32 bits."""
    batch, channels, height, width = shape
    if batch * height * width > MAX_PIXELS:
        raise ValueError(
            f"images: expected at most {MAX_PIXELS} pixels in all, got shape {tuple(shape)}; split the batch"
        )
    if channels > MAX_CHANNELS:
        raise ValueError(f"images: expected at most {MAX_CHANNELS} channels, got shape {tuple(shape)}")
    if not channels_last and channels * height * width >= 2**31:
        raise ValueError(
            f"images: expected fewer than {2**31} values in each, got shape {tuple(shape)}; use channels_last"
        )
