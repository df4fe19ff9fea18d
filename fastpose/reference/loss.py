"""Losses on heatmaps: weighted mean squared error and its hard-keypoint form, from targets or from joints."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.reference.heatmap import gaussian_heatmaps


def heatmap_mse(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted squared error, `0.5 * mean(weight² * (pred - target)²)` over batch, joints and pixels.

    The weight enters squared, and joints of weight 0 still count in the mean: both as in the official code.

    Args:
        pred, target: (B, K, H, W), floating point; computed in float32, or float64 if either is float64.
        weight: (B, K), or None for 1.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ.

    Source: hrnet lib/core/loss.py, JointsMSELoss.
    """
    return 0.5 * _weighted_difference(pred, target, weight).square().mean()


def heatmap_ohkm(pred: Tensor, target: Tensor, weight: Tensor | None = None, topk: int = 8) -> Tensor:
    """`heatmap_mse` of the `topk` hardest joints of each sample (online hard keypoint mining).

    Args:
        pred, target, weight: as in `heatmap_mse`.
        topk: joints kept per sample, 1 to K; NaN counts as the largest loss, and of equal ones the lowest
            joint is kept.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ or `topk` is out of range.

    Source: hrnet lib/core/loss.py, JointsOHKMMSELoss.
    """
    difference = _weighted_difference(pred, target, weight)
    check_topk(topk, pred.shape[1])
    per_joint = 0.5 * difference.square().mean(dim=(-2, -1))
    return per_joint.sort(dim=1, descending=True, stable=True).values[:, :topk].mean()


def heatmap_loss(
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
    topk: int | None = None,
) -> Tensor:
    """`heatmap_mse`, or `heatmap_ohkm` with a `topk`, of a prediction and the joints it should show.

    Args:
        pred: (B, K, H, W), floating point.
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64.
        weight: (B, K); joints above 0 are drawn, and count with it where `gaussian_heatmaps` keeps them.
        input_size, sigma, unbiased: as in `gaussian_heatmaps`.
        topk: joints kept per sample, 1 to K, or None for all.

    Returns:
        Scalar, float32, or float64 for such a `pred`; NaN for an empty batch.

    Raises:
        ValueError: an argument is wrong.

    Source: hrnet lib/dataset/JointsDataset.py, generate_target; lib/core/loss.py.
    """
    target, weight = _target(pred, joints, weight, input_size, sigma, unbiased)
    if topk is None:
        return heatmap_mse(pred, target, weight)
    return heatmap_ohkm(pred, target, weight, topk)


def heatmap_loss_gradient(
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
    topk: int | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Gradient of `scale * heatmap_loss` with respect to `pred`, in its dtype and memory format.

    Args:
        scale: scalar tensor, floating point, or None for 1; enters before the rounding to the dtype of pred.
        The others are those of `heatmap_loss`.

    Raises:
        ValueError: an argument is wrong.
    """
    target, weight = _target(pred, joints, weight, input_size, sigma, unbiased)
    difference = _weighted_difference(pred, target, weight)
    batch, count, height, width = pred.shape
    factor = weight.to(difference.dtype)
    if topk is not None:
        factor = factor * _hardest(difference, topk)
    if scale is not None:
        factor = factor * scale.to(difference.dtype)
    factor = factor / max(1, batch * (count if topk is None else topk) * height * width)
    return torch.empty_like(pred).copy_(difference * factor[..., None, None])


def hardest_joints(
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
    topk: int,
) -> Tensor:
    """(B, K), 1 for the joints that `heatmap_loss` of these arguments keeps, else 0."""
    target, weight = _target(pred, joints, weight, input_size, sigma, unbiased)
    return _hardest(_weighted_difference(pred, target, weight), topk)


def check_topk(topk: int, count: int) -> None:
    """ValueError unless `topk` of `count` joints can be kept."""
    if not isinstance(topk, int) or not 1 <= topk <= count:
        raise ValueError(f"topk: expected 1 to {count} joints, got {topk}")


def _hardest(difference: Tensor, topk: int) -> Tensor:
    check_topk(topk, difference.shape[1])
    per_joint = 0.5 * difference.square().mean(dim=(-2, -1))
    order = per_joint.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(per_joint).scatter(1, order[:, :topk], 1.0)


def _target(
    pred: Tensor,
    joints: Tensor,
    weight: Tensor,
    input_size: tuple[int, int],
    sigma: float,
    unbiased: bool,
) -> tuple[Tensor, Tensor]:
    """Heatmaps as large as pred, and the weight in the loss."""
    heatmap_size = (pred.shape[3], pred.shape[2])
    target, in_map = gaussian_heatmaps(
        joints,
        (weight > 0).to(torch.float32),
        heatmap_size=heatmap_size,
        input_size=input_size,
        sigma=sigma,
        unbiased=unbiased,
    )
    return target, in_map * weight


def _weighted_difference(pred: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    if pred.ndim != 4 or pred.shape != target.shape:
        raise ValueError(
            f"target: expected the (B, K, H, W) of pred, {tuple(pred.shape)}, got {tuple(target.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    difference = pred.to(dtype) - target.to(dtype)
    if weight is None:
        return difference
    if weight.shape != pred.shape[:2]:
        raise ValueError(f"weight: expected {tuple(pred.shape[:2])}, got {tuple(weight.shape)}")
    return difference * weight.to(dtype)[..., None, None]
