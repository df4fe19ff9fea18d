"""PCK, AUC and end-point error of keypoints, and the accuracy that training shows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastpose.errors import DataError
from fastpose.reference.decode import argmax_heatmaps
from fastpose.reference.heatmap import gaussian_peaks


class HeatmapAccuracy(NamedTuple):
    per_joint: Tensor  # (K,) float64, -1 where no target counts
    mean: Tensor  # () float64, over the joints that count; 0 when none does
    counted: Tensor  # () int64, joints that count


def heatmap_accuracy(pred: Tensor, target: Tensor, threshold: float = 0.5) -> HeatmapAccuracy:
    """Share of peaks within `threshold` tenths of the heatmap of the target's peak; stays on the device.

    A target counts if its peak lies beyond row and column 1. As in the official code the x distance is
    measured in tenths of the height and the y distance in tenths of the width.

    Args:
        pred, target: (B, K, H, W), floating point.

    Raises:
        DataError: shapes differ.

    Source: hrnet lib/core/evaluate.py, accuracy.
    """
    if pred.shape != target.shape:
        raise DataError(f"target: expected the shape of pred {tuple(pred.shape)}, got {tuple(target.shape)}")
    return _peak_accuracy(pred, argmax_heatmaps(target)[0], threshold)


def joint_accuracy(
    pred: Tensor,
    joints: Tensor,
    visible: Tensor,
    *,
    input_size: tuple[int, int],
    sigma: float = 2.0,
    unbiased: bool = False,
    threshold: float = 0.5,
) -> HeatmapAccuracy:
    """`heatmap_accuracy` against the heatmaps that `gaussian_heatmaps` would draw, without drawing them.

    Args:
        pred: (B, K, H, W), floating point.
        joints: (B, K, 2) in input pixels, (x, y), float32 or float64.
        visible: (B, K), a joint counts where it exceeds 0.5.
        input_size: (width, height).
        sigma, unbiased: of the target, as in `gaussian_heatmaps`.

    Raises:
        DataError: `joints` are not those of `pred`.
        ValueError: another argument is wrong.
    """
    if pred.ndim != 4 or joints.shape != (*pred.shape[:2], 2):
        raise DataError(f"joints: expected (B, K, 2) of pred {tuple(pred.shape)}, got {tuple(joints.shape)}")
    wanted = gaussian_peaks(
        joints,
        visible,
        heatmap_size=(pred.shape[3], pred.shape[2]),
        input_size=input_size,
        sigma=sigma,
        unbiased=unbiased,
    )
    return _peak_accuracy(pred, wanted, threshold)


def _peak_accuracy(pred: Tensor, wanted: Tensor, threshold: float) -> HeatmapAccuracy:
    """wanted: (B, K, 2) peaks of the target."""
    height, width = pred.shape[2:]
    found, _, _ = argmax_heatmaps(pred.detach())
    counts = (wanted > 1).all(dim=-1)
    dx, dy = (found.double() - wanted.double()).unbind(-1)
    close = torch.hypot(dx / (height / 10), dy / (width / 10)) < threshold
    total = counts.sum(dim=0)
    rate = (close & counts).sum(dim=0).double() / total.clamp(min=1)
    counted = (total > 0).sum()
    mean = torch.where(total > 0, rate, 0.0).sum() / counted.clamp(min=1)
    return HeatmapAccuracy(torch.where(total > 0, rate, -1.0), mean, counted)


def pck(
    keypoints: np.ndarray,
    truth: np.ndarray,
    visible: np.ndarray,
    normaliser: np.ndarray,
    threshold: float = 0.2,
) -> float:
    """Percentage of correct keypoints as a fraction: error / normaliser below the threshold.

    The rate of each joint over its visible instances, averaged over the joints without weights.

    Args:
        keypoints, truth: (N, K, 2), one unit; a keypoint that is not finite counts as wrong.
        visible: (N, K), non-zero where the truth is labelled.
        normaliser: (N,), such as the longer side of the box or the torso, or (N, 2) for x and y apart.

    Returns:
        0 to 1; nan when nothing is visible.

    Raises:
        DataError: shapes disagree.

    Source: Yang and Ramanan, TPAMI 2013; averaged as mmpose keypoint_pck_accuracy.
    """
    error, visible = _errors(keypoints, truth, visible, normaliser)
    return _mean_rate(error < threshold, visible)


def auc(
    keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray, normaliser: np.ndarray, steps: int = 20
) -> float:
    """Area under the PCK curve: mean of `pck` at the thresholds 0, 1/steps, ..., (steps - 1)/steps.

    Arguments, result and errors as `pck`. With a normaliser of 30 px this is mmpose's keypoint_auc.
    """
    error, visible = _errors(keypoints, truth, visible, normaliser)
    return float(np.mean([_mean_rate(error < step / steps, visible) for step in range(steps)]))


def epe(keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> float:
    """End-point error: mean distance over all visible keypoints, in the unit of the keypoints.

    Arguments as `pck`; nan when nothing is visible.

    Raises:
        DataError: shapes disagree, or a visible keypoint is not finite, which has no distance.
    """
    error, visible = _errors(keypoints, truth, visible, np.ones(len(truth)))
    if not visible.any():
        return float("nan")
    finite = np.isfinite(error[visible])
    if not finite.all():
        raise DataError(f"keypoints: {int((~finite).sum())} of {finite.size} visible ones are not finite")
    return float(error[visible].mean())


def _errors(
    keypoints: np.ndarray, truth: np.ndarray, visible: np.ndarray, normaliser: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) normalised distances and the mask of those that count."""
    if keypoints.ndim != 3 or keypoints.shape != truth.shape or visible.shape != truth.shape[:2]:
        raise DataError(
            f"keypoints, truth, visible: expected (N, K, 2) twice and (N, K), got {keypoints.shape}, "
            f"{truth.shape}, {visible.shape}"
        )
    if normaliser.shape not in ((len(truth),), (len(truth), 2)) or not (normaliser > 0).all():
        raise DataError(
            f"normaliser: expected positive ({len(truth)},) or ({len(truth)}, 2), got {normaliser.shape}"
        )
    difference = keypoints.astype(np.float64) - truth
    scale = normaliser[:, None] if normaliser.ndim == 2 else normaliser[:, None, None]
    return np.linalg.norm(difference / scale, axis=2), visible != 0


def _mean_rate(correct: np.ndarray, visible: np.ndarray) -> float:
    labelled = visible.sum(axis=0)
    counted = labelled > 0
    if not counted.any():
        return float("nan")
    return float(np.mean((correct & visible).sum(axis=0)[counted] / labelled[counted]))
