"""Gradients of the 1x1 weights by moments; the specification is fastpose.reference.fuse_steps."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from fastpose.kernels.common import dot, pick, rounded
from fastpose.kernels.configs import WeightConfig, weight_backward_config
from torch import Tensor


@triton.jit
def _statistics(p_gamma, p_variance, p_dgamma, o_c, m_c, share, eps):
    """scale = gamma / std, and what a unit of the centred output takes off: share * dgamma / std."""
    b_var = tl.load(p_variance + o_c, mask=m_c, other=1.0)
    b_r = tl.rsqrt(b_var + tl.cast(eps, tl.float32))
    b_scale = tl.load(p_gamma + o_c, mask=m_c, other=0.0) * b_r
    b_slope = tl.load(p_dgamma + o_c, mask=m_c, other=0.0) * b_r * tl.cast(share, tl.float32)
    return b_scale, b_slope


@triton.jit
def fuse_weight_bwd_kernel(
    p_crosses,  # [C, INPUTS] float32 for each path, and so the next two, [C, INPUTS]
    p_weights,
    p_dweights,  # float32
    p_scaled,  # as the weights
    p_gammas,  # [C] float32 for each path, and so the next five
    p_means,
    p_variances,
    p_dbetas,  # of all processes, as p_dgammas
    p_dgammas,
    p_local_dbetas,
    shares,  # pixels here / pixels of the statistics, or 0 where they were frozen
    p_mean,  # [INPUTS] float32
    p_cov,  # [INPUTS, INPUTS] float32
    eps,
    WIDTHS: tl.constexpr,
    INPUTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """BLOCK_C rows and BLOCK_N columns of `dweights` and `scaled` of one path.

    Traffic for each weight: 8 bytes and twice the weight's; the covariance comes from the L2 cache.
    """
    i_path = tl.program_id(2)
    width = pick(WIDTHS, i_path)
    o_c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)  # [BLOCK_C]
    o_n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    m_c = o_c < width
    m_n = o_n < INPUTS
    p_rows = pick(p_weights, i_path) + o_c[:, None] * INPUTS
    b_centre = tl.zeros([BLOCK_C], tl.float32)  # weight @ mean
    b_dw = tl.zeros([BLOCK_C, BLOCK_N], tl.float32)
    for first in range(0, INPUTS, BLOCK_K):
        o_k = first + tl.arange(0, BLOCK_K)  # [BLOCK_K]
        m_k = o_k < INPUTS
        b_w = tl.load(p_rows + o_k[None, :], mask=m_c[:, None] & m_k[None, :], other=0.0).to(tl.float32)
        p_block = p_cov + o_k[:, None] * INPUTS + o_n[None, :]
        b_cov = tl.load(p_block, mask=m_k[:, None] & m_n[None, :], other=0.0)
        b_dw = dot(b_w, b_cov, b_dw)
        b_centre += tl.sum(b_w * tl.load(p_mean + o_k, mask=m_k, other=0.0)[None, :], axis=1)

    share = pick(shares, i_path)
    b_scale, b_slope = _statistics(
        pick(p_gammas, i_path), pick(p_variances, i_path), pick(p_dgammas, i_path), o_c, m_c, share, eps
    )
    b_centre -= tl.load(pick(p_means, i_path) + o_c, mask=m_c, other=0.0)
    b_shift = tl.load(pick(p_dbetas, i_path) + o_c, mask=m_c, other=0.0) * tl.cast(share, tl.float32)
    b_shift = tl.load(pick(p_local_dbetas, i_path) + o_c, mask=m_c, other=0.0) - b_shift - b_slope * b_centre
    b_mean = tl.load(p_mean + o_n, mask=m_n, other=0.0)
    mask = m_c[:, None] & m_n[None, :]
    o_tile = o_c[:, None] * INPUTS + o_n[None, :]
    b_cross = tl.load(pick(p_crosses, i_path) + o_tile, mask=mask, other=0.0)
    b_dw = b_cross + b_shift[:, None] * b_mean[None, :] - b_slope[:, None] * b_dw
    tl.store(pick(p_dweights, i_path) + o_tile, b_scale[:, None] * b_dw, mask=mask)
    b_scaled = b_scale[:, None] * tl.load(p_rows + o_n[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(pick(p_scaled, i_path) + o_tile, rounded(b_scaled, p_scaled[0].dtype.element_ty), mask=mask)


@triton.jit
def fuse_matrix_bwd_kernel(
    p_weights,  # [C, INPUTS] for each path
    p_gammas,  # [C] float32 for each path, and so the next four
    p_means,
    p_variances,
    p_dbetas,
    p_dgammas,
    shares,  # 1 / pixels of the statistics
    p_matrix,  # [INPUTS, INPUTS]
    p_offset,  # [INPUTS] float32
    eps,
    WIDTHS: tl.constexpr,
    INPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """BLOCK_M x BLOCK_M of the sum over paths of weight^T diag(scale slope) weight, and a part of `offset`.

    The weights are read once from memory, INPUTS / BLOCK_M times in all.
    """
    o_m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    o_n = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    m_m = o_m < INPUTS
    m_n = o_n < INPUTS
    b_matrix = tl.zeros([BLOCK_M, BLOCK_M], tl.float32)
    b_offset = tl.zeros([BLOCK_M], tl.float32)
    for i in tl.static_range(len(p_weights)):
        for first in range(0, WIDTHS[i], BLOCK_K):
            o_k = first + tl.arange(0, BLOCK_K)  # [BLOCK_K]
            m_k = o_k < WIDTHS[i]
            b_scale, b_slope = _statistics(
                p_gammas[i], p_variances[i], p_dgammas[i], o_k, m_k, shares[i], eps
            )
            b_mean = tl.load(p_means[i] + o_k, mask=m_k, other=0.0)
            b_shift = tl.load(p_dbetas[i] + o_k, mask=m_k, other=0.0) * tl.cast(shares[i], tl.float32)
            p_rows = p_weights[i] + o_k[:, None] * INPUTS
            b_left = tl.load(p_rows + o_m[None, :], mask=m_k[:, None] & m_m[None, :], other=0.0).to(
                tl.float32
            )
            b_right = tl.load(p_rows + o_n[None, :], mask=m_k[:, None] & m_n[None, :], other=0.0).to(
                tl.float32
            )
            b_offset += tl.sum(b_left * (b_scale * (b_shift - b_slope * b_mean))[:, None], axis=0)
            b_left = tl.trans(b_left * (b_scale * b_slope)[:, None])
            b_matrix = dot(b_left, b_right, b_matrix)
    mask = m_m[:, None] & m_n[None, :]
    o_tile = o_m[:, None] * INPUTS + o_n[None, :]
    tl.store(p_matrix + o_tile, rounded(b_matrix, p_matrix.dtype.element_ty), mask=mask)
    tl.store(p_offset + o_m, b_offset, mask=m_m & (tl.program_id(0) == 0))


def launch_weight_gradients(
    crosses: Sequence[Tensor],
    weights: Sequence[Tensor],
    gammas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    local_dbetas: Sequence[Tensor],
    dbetas: Sequence[Tensor],
    dgammas: Sequence[Tensor],
    mean: Tensor,
    cov: Tensor,
    totals: Sequence[int],
    count: int,
    eps: float,
    config: WeightConfig | None = None,
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """`weight_gradients` of the reference in two launches, or one where all statistics were frozen.

    crosses, mean, cov and vectors are float32; so are dweights and offset, the rest is as the weights.
    `config` replaces the tile sizes of the table.
    """
    config = config or weight_backward_config()
    weights = [weight.contiguous() for weight in weights]
    dweights = [torch.empty_like(weight, dtype=torch.float32) for weight in weights]
    scaled = [torch.empty_like(weight) for weight in weights]
    widths = tuple(len(weight) for weight in weights)
    inputs = len(mean)
    vectors = [_contiguous(v) for v in (gammas, means, variances, dbetas, dgammas)]
    grid = (triton.cdiv(inputs, config.block_n), triton.cdiv(max(widths), config.block_c), len(widths))
    with torch.cuda.device_of(mean):
        fuse_weight_bwd_kernel[grid](
            _contiguous(crosses),
            tuple(weights),
            tuple(dweights),
            tuple(scaled),
            *vectors,
            _contiguous(local_dbetas),
            tuple(count / total if total else 0.0 for total in totals),
            mean.contiguous(),
            cov.contiguous(),
            float(eps),
            WIDTHS=widths,
            INPUTS=inputs,
            BLOCK_C=config.block_c,
            BLOCK_N=config.block_n,
            BLOCK_K=config.block_k,
            num_warps=config.num_warps,
        )
    matrix, offset = _launch_matrix(weights, vectors, totals, inputs, eps, config)
    return dweights, scaled, matrix, offset


def _launch_matrix(
    weights: Sequence[Tensor],
    vectors: Sequence[Sequence[Tensor]],
    totals: Sequence[int],
    inputs: int,
    eps: float,
    config: WeightConfig,
) -> tuple[Tensor, Tensor]:
    """matrix and offset; only paths with the statistics of the batch have a part in them."""
    paths = [path for path in zip(totals, weights, *vectors, strict=True) if path[0]]
    like, shape = weights[0], (inputs, inputs)
    if not paths:
        return like.new_zeros(shape), like.new_zeros(inputs, dtype=torch.float32)
    matrix, offset = like.new_empty(shape), like.new_empty(inputs, dtype=torch.float32)
    blocks = triton.cdiv(inputs, config.block_m)
    counts, *tensors = zip(*paths, strict=True)
    with torch.cuda.device_of(matrix):
        fuse_matrix_bwd_kernel[(blocks, blocks)](
            *tensors,
            tuple(1.0 / total for total in counts),
            matrix,
            offset,
            float(eps),
            WIDTHS=tuple(len(weight) for weight in tensors[0]),
            INPUTS=inputs,
            BLOCK_M=config.block_m,
            BLOCK_K=config.block_k,
            num_warps=config.num_warps,
        )
    return matrix, offset


def _contiguous(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)
