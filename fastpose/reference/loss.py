"""Losses on heatmaps: weighted mean squared error and its hard-keypoint form."""

from __future__ import annotations

import torch
from torch import Tensor


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
        topk: joints kept per sample, 1 to K.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes differ or `topk` is out of range.

    Source: hrnet lib/core/loss.py, JointsOHKMMSELoss.
    """
    per_joint = 0.5 * _weighted_difference(pred, target, weight).square().mean(dim=(-2, -1))
    if not 1 <= topk <= per_joint.shape[1]:
        raise ValueError(f"topk: expected 1 to {per_joint.shape[1]} joints, got {topk}")
    return per_joint.topk(topk, dim=1).values.mean()


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
