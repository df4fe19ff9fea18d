"""The fused sum by moments: the batch statistics of a 1x1 convolution from those of its input.

z = W x has the mean W m and the variance diag(W C W^T), with m and C the mean and the covariance of x over
the batch, so z itself is never stored, forward or backward. Each function is one step; docs/ops/fuse.md
derives them. Vectors are (C,) and computed in float32 (float64 for float64 inputs); images are (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastpose.reference.fuse import vector_dtype


def input_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and biased covariance (C, C) of the pixels of `x`."""
    rows = _pixels(x)
    mean = rows.mean(0)
    centred = rows - mean
    return mean, centred.T @ centred / len(rows)


def channel_statistics(xs: Sequence[Tensor]) -> list[Tensor]:
    """(2, C) for each image: mean and biased variance of every channel."""
    return [torch.stack((_pixels(x).mean(0), _pixels(x).var(0, correction=0))) for x in xs]


def path_statistics(mean: Tensor, cov: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """(2, C) for each weight (C, inputs): mean and biased variance of `weight @ x`, from the moments of x."""
    matrices = [weight.to(mean.dtype) for weight in weights]
    return [torch.stack((w @ mean, ((w @ cov) * w).sum(1).clamp_min(0))) for w in matrices]


def forward_row(
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
) -> Tensor:
    """relu(identity + sum up(BN(weight @ x)) + sum BN(image)), (B, C, *size).

    `weights` (C, inputs) belong to `xs`; gammas, betas, means and variances first to `xs`, then to `images`.
    """
    like = identity if identity is not None else (*xs, *images)[0]
    dtype = vector_dtype(like)
    total = torch.zeros((), dtype=dtype) if identity is None else identity.to(dtype)
    addends = [
        torch.einsum("oi,bihw->bohw", w.to(dtype), x.to(dtype)) for x, w in zip(xs, weights, strict=True)
    ]
    addends += [image.to(dtype) for image in images]
    for z, gamma, beta, mean, var in zip(addends, gammas, betas, means, variances, strict=True):
        scale = gamma.to(dtype) * torch.rsqrt(var.to(dtype) + eps)
        z = (z - mean.to(dtype)[:, None, None]) * scale[:, None, None] + beta.to(dtype)[:, None, None]
        total = total + _upsample(z, size[0] // z.shape[2])
    return torch.relu(total).to(like.dtype)


def backward_row(
    grad: Tensor,
    output: Tensor,
    images: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    levels: Sequence[int],
    eps: float,
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """First pass over the gradient of one output.

    Returns:
        masked: (B, C, H, W), `grad` where the ReLU let through.
        pooled: for each level l the sums of `masked` over 2^l x 2^l pixels, in its dtype.
        dbeta: (C,), the sum of `masked`; every path of the row has it.
        dgammas: (images, C), the sums of `masked` times the normalised image.
    """
    masked = torch.where(output > 0, grad, 0)
    wide = masked.to(vector_dtype(masked))
    pooled = [(F.avg_pool2d(wide, 2**level) * 4**level).to(grad.dtype) for level in levels]
    dgammas = wide.new_zeros(len(images), grad.shape[1])
    for row, (image, mean, var) in enumerate(zip(images, means, variances, strict=True)):
        centred = image.to(wide.dtype) - mean.to(wide.dtype)[:, None, None]
        dgammas[row] = (wide * centred).sum((0, 2, 3)) * torch.rsqrt(var.to(wide.dtype) + eps)
    return masked, pooled, wide.sum((0, 2, 3)), dgammas


def cross_moments(
    x: Tensor,
    mean: Tensor,
    pooled: Sequence[Tensor],
    weights: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    eps: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """(C, inputs) sum of `pooled` times (x - mean), and dgamma (C,), of each path that starts at `x`.

    `mean` (inputs,) may be any centre: dgamma corrects for `means`, the ones that were normalised with.
    """
    rows = _pixels(x)
    crosses, dgammas = [], []
    for p, weight, mean_z, var in zip(pooled, weights, means, variances, strict=True):
        p_rows, w = _pixels(p), weight.to(rows.dtype)
        cross = p_rows.T @ (rows - mean)
        off_centre = p_rows.sum(0) * (w @ mean - mean_z.to(rows.dtype))
        crosses.append(cross)
        dgammas.append(((cross * w).sum(1) + off_centre) * torch.rsqrt(var.to(rows.dtype) + eps))
    return crosses, dgammas


def weight_gradients(
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
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Gradients of the weights, and the matrices that `input_gradient` multiplies with.

    dbetas, dgammas: of the whole batch, over all processes. totals: the pixels they were summed over, or 0
    where the statistics of the path were frozen. local_dbetas, count (pixels of x): of this process.

    Returns:
        dweights: (C, inputs) each. scaled: (C, inputs) each, diag(gamma / std) weight, in the weight's dtype.
        matrix: (inputs, inputs), in the weight's dtype, and offset (inputs,): what the statistics take off.
    """
    dweights, scaled = [], []
    matrix, offset = torch.zeros_like(cov), torch.zeros_like(mean)
    paths = zip(
        crosses, weights, gammas, means, variances, local_dbetas, dbetas, dgammas, totals, strict=True
    )
    for cross, weight, gamma, mean_z, var, local_dbeta, dbeta, dgamma, total in paths:
        w, r = weight.to(cov.dtype), torch.rsqrt(var.to(cov.dtype) + eps)
        scale = gamma.to(cov.dtype) * r
        s, g = (v.to(cov.dtype) * _reciprocal(total) for v in (dbeta, dgamma * r))
        off_centre = w @ mean - mean_z.to(cov.dtype)
        slope = local_dbeta.to(cov.dtype) - count * (s + g * off_centre)
        dweights.append(scale[:, None] * (cross + slope[:, None] * mean - count * g[:, None] * (w @ cov)))
        scaled.append((scale[:, None] * w).to(weight.dtype))
        matrix += w.T @ ((scale * g)[:, None] * w)
        offset += w.T @ (scale * (s - g * mean_z.to(cov.dtype)))
    return dweights, scaled, matrix.to(weights[0].dtype), offset


def input_gradient(
    x: Tensor,
    masked: Tensor | None,
    pooled: Sequence[Tensor],
    scaled: Sequence[Tensor],
    matrix: Tensor,
    offset: Tensor,
) -> Tensor:
    """masked + sum pooled @ scaled - x @ matrix - offset: gradient of a source over all rows, like `x`.

    `masked` is that of the row whose identity `x` is, or None.
    """
    dtype = vector_dtype(x)
    total = -torch.einsum("io,bihw->bohw", matrix.to(dtype), x.to(dtype)) - offset[:, None, None]
    for p, weight in zip(pooled, scaled, strict=True):
        total = total + torch.einsum("oi,bohw->bihw", weight.to(dtype), p.to(dtype))
    return (total if masked is None else total + masked).to(x.dtype)


def image_gradients(
    masked: Tensor,
    images: Sequence[Tensor],
    gammas: Sequence[Tensor],
    means: Sequence[Tensor],
    variances: Sequence[Tensor],
    dbetas: Sequence[Tensor],
    dgammas: Sequence[Tensor],
    totals: Sequence[int],
    eps: float,
) -> list[Tensor]:
    """Gradients of the images that only pass a BatchNorm; arguments as in `weight_gradients`."""
    out = []
    wide = masked.to(vector_dtype(masked))
    paths = zip(images, gammas, means, variances, dbetas, dgammas, totals, strict=True)
    for image, gamma, mean, var, dbeta, dgamma, total in paths:
        r = torch.rsqrt(var.to(wide.dtype) + eps)
        normalised = (image.to(wide.dtype) - mean.to(wide.dtype)[:, None, None]) * r[:, None, None]
        s, g = (v.to(wide.dtype) * _reciprocal(total) for v in (dbeta, dgamma))
        dx = wide - s[:, None, None] - normalised * g[:, None, None]
        out.append((dx * (gamma.to(wide.dtype) * r)[:, None, None]).to(image.dtype))
    return out


def _reciprocal(total: int) -> float:
    return 1.0 / total if total else 0.0


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B H W, C) in the dtype of the computation."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).to(vector_dtype(x))


def _upsample(z: Tensor, factor: int) -> Tensor:
    return z if factor == 1 else z.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
