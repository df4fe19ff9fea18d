"""How alike two frames' people are: boxes by IoU, poses by OKS, each of the one against each of the other."""

from __future__ import annotations

import numpy as np

LEAST_JOINTS = 3
"""Fewer joints in common say too little about whether two poses are one person's."""


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) float64 intersection over union of (N, 4) and (M, 4) corners; 0 without area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = box_area(boxes)[:, None] + box_area(others)[None] - shared
    return shared / np.where(union > 0, union, 1.0)


def box_area(boxes: np.ndarray) -> np.ndarray:
    """(N,) square pixels of (N, 4) corners: left, top, right, bottom."""
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)


def pose_oks(
    keypoints: np.ndarray,
    others: np.ndarray,
    area: np.ndarray,
    other_area: np.ndarray,
    sigmas: np.ndarray,
) -> np.ndarray:
    """(N, M) float64 OKS of (N, K, 2) and (M, K, 2) over the joints that both have, NaN where both have fewer
    than LEAST_JOINTS.

    An absent joint is NaN. area: (N,) and (M,) square pixels; sigmas: (K,). With every joint there it is
    `fastpose.metrics.oks` (hrnet lib/nms/nms.py), and without some COCO's rule of leaving them out.
    """
    variance = 2 * (2 * sigmas) ** 2
    size = (area[:, None] + other_area[None]) / 2 + np.spacing(1)
    squared = np.square(keypoints[:, None] - others[None]).sum(axis=3)  # (N, M, K)
    there = np.isfinite(squared)
    near = np.exp(-np.where(there, squared, np.inf) / (variance * size[..., None]))
    count = there.sum(axis=2)
    return np.where(count >= LEAST_JOINTS, near.sum(axis=2) / np.maximum(count, 1), np.nan)
