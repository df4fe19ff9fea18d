"""Tile sizes of the kernels by GPU generation; pure look-ups, nothing is tried out at run time.

The entries follow from bytes and FLOPs per tile and from the registers and shared memory that compiling ahead
of time reports. None of them has been timed on a GPU; bench/tune_fuse.py is there to replace them by measured
ones.
"""

from dataclasses import dataclass
from functools import cache

import torch

UNKNOWN_CAPABILITY = 90  # of tensors on the CPU, which only the interpreter takes


@dataclass(frozen=True)
class ForwardConfig:
    """A program of the fused sum: `pixels` of the output times `block_c` of its channels."""

    pixels: int  # a power of two, 16 at least
    block_c: int
    block_k: int  # input channels of one step of a dot
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class MomentsConfig:
    """A program of products over pixels: tiles of `block` x `block`, `rows` pixels at a time."""

    block: int
    rows: int
    programs: int  # how many a launch should have at least
    num_warps: int
    num_stages: int
    reuse: bool  # one load for both operands of a product with itself; without it the loads are asynchronous

    def chunk(self, rows: int, tiles: int) -> int:
        """Rows of one program where `rows` are shared out for each of `tiles` tiles: a power of two.

        Not below 512, so that partial sums stay few, nor above 4096, so that float32 holds them: added up in
        parts (PART in kernels/pixel_products.py), they are off by about 4e-7 of themselves.
        """
        wanted = min(max(rows * tiles // self.programs, 512), 4096, max(rows, self.rows))
        return 1 << (wanted - 1).bit_length()


@cache
def capability(device: torch.device) -> int:
    """Major and minor of the CUDA capability as one number, such as 90."""
    if device.type != "cuda":
        return UNKNOWN_CAPABILITY
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def forward_config(
    capability: int, levels: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> ForwardConfig:
    """Tiles of a row with paths of these levels, or of images alone.

    Large tiles read the weights seldom, and coarse levels have 16 pixels in them; of channels a block takes
    few, so that registers leave room for 16 warps or more on a processor.
    """
    coarsest = max(levels, default=0)
    if dtype == torch.float32:
        return ForwardConfig(128 if coarsest and channels_last else 64, 32, 32 if coarsest else 16, 4, 2)
    if not channels_last:
        # with two stages sm_80 spills in rows of 64 channels with these levels
        return ForwardConfig(64, 32, 32, 4, 3 if capability // 10 == 8 and levels == (1, 2) else 2)
    if coarsest > 1:
        return ForwardConfig(256, 32, 64, 8, 3)
    if coarsest == 1:
        return ForwardConfig(128, 32, 64, 4, 3)
    if len(levels) == 1:  # the source is read again for each block of channels, so they are few
        return ForwardConfig(128, 64, 64, 8, 3)
    # tensor memory gives a thread a whole row, and with it the statistics of all its channels
    return ForwardConfig(64, 32 if levels and capability // 10 == 10 else 64, 64, 4, 3)


def moments_config(capability: int, channels: int, dtype: torch.dtype, channels_last: bool) -> MomentsConfig:
    """For products with a source of `channels`; 264 programs are two for each processor of an H200."""
    if dtype == torch.float32:
        # with two stages sm_90 spills in the products of W32's third branch
        num_stages = 3 if capability // 10 == 9 and channels == 128 and not channels_last else 2
        return MomentsConfig(32, 32, 264, 4, num_stages, reuse=True)
    if not channels_last or channels <= 32:
        return MomentsConfig(32, 64, 264, 4, 3, reuse=False)
    # their tensor cores take both operands from shared memory, so one copy there serves both
    shared_operands = capability // 10 in (9, 10)
    num_warps = 8 if capability // 10 == 10 else 4
    return MomentsConfig(64, 64, 264, num_warps, 4 if shared_operands else 3, reuse=shared_operands)


@dataclass(frozen=True)
class StatisticsConfig:
    """A program over an image: `rows` pixels times `block_c` channels at a time."""

    rows: int
    block_c: int
    num_warps: int


@dataclass(frozen=True)
class PathConfig:
    """A program over the 1x1 weights: `block_c` outputs, `block_n` columns of the covariance."""

    block_c: int
    block_n: int
    block_k: int
    num_warps: int


def statistics_config(channels: int) -> StatisticsConfig:
    block_c = channel_block(channels)
    return StatisticsConfig(2048 // block_c, block_c, 4)


def path_config() -> PathConfig:
    return PathConfig(16, 32, 64, 4)


@dataclass(frozen=True)
class PassConfig:
    """A pass over gradients: a tile is `pixels` times `block_c` channels."""

    pixels: int  # a multiple of 4^L
    block_c: int
    num_warps: int


@dataclass(frozen=True)
class InputConfig:
    """A program of the gradient of a source: `pixels` times `block_n` of its channels."""

    pixels: int
    block_n: int
    block_k: int  # channels of one step of a dot
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class WeightConfig:
    """Programs over 1x1 weights: `block_c` x `block_n` of a weight, `block_m` x `block_m` of the matrix."""

    block_c: int
    block_n: int
    block_m: int
    block_k: int
    num_warps: int


def row_backward_config(channels: int, coarsest: int, images: int, channels_last: bool) -> PassConfig:
    """First pass of a row; images take registers beside the gradient, and so do the addresses of NCHW."""
    block_c = channel_block(channels, 128 if channels_last else 32)
    elements = 4096 if channels_last and not images else 2048
    # the coarsest branch of W48: with four warps sm_100 spills
    num_warps = 8 if images > 2 and channels > 256 and not channels_last else 4
    return PassConfig(max(elements // block_c, 4**coarsest), block_c, num_warps)


def image_backward_config(channels: int) -> PassConfig:
    block_c = channel_block(channels)
    return PassConfig(2048 // block_c, block_c, 4)


def input_backward_config(
    capability: int, inputs: int, dtype: torch.dtype, channels_last: bool
) -> InputConfig:
    """NCHW loads pixel by pixel and so takes more registers; float32 dots run on the general cores."""
    if dtype == torch.float32:
        return InputConfig(32, channel_block(inputs, 64), 32, 4, 2)
    block_n = channel_block(inputs, 128 if channels_last else 64)
    if capability // 10 in (9, 10):  # accumulators that leave registers free, 227 KB of shared memory
        return InputConfig(64, block_n, 64, 4, 3)
    return InputConfig(64, block_n, 64, 8 if block_n == 128 else 4, 2)


def weight_backward_config() -> WeightConfig:
    return WeightConfig(16, 64, 32, 32, 8)


def channel_block(channels: int, most: int = 128) -> int:
    """Power of two from 16 to `most` whose blocks reach least beyond `channels`; of equals, the largest."""
    sizes = [size for size in (16, 32, 64, 128) if size <= most]
    enough = [size for size in sizes if size >= channels]
    return enough[0] if enough else min(sizes[:-3:-1], key=lambda size: -channels % size)
