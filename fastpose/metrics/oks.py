"""Object keypoint similarity and the two suppressions built on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastpose.errors import DataError

MAX_DETECTIONS = 20  # per image, as COCO's keypoint evaluation


def oks(
    keypoints: np.ndarray,
    others: np.ndarray,
    area: float,
    other_areas: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Similarity of one pose to N others: `mean_k exp(-d_k² / (2 (2 sigma_k)² * mean area))`.

    Args:
        keypoints: (K, 2 or more), (x, y, ...) in image pixels; further columns are ignored.
        others: (N, K, 2 or more).
        area, other_areas: square pixels, a number and (N,).
        sigmas: (K,), `KeypointSet.sigmas`.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        DataError: the number of joints and of sigmas differ.

    Source: hrnet lib/nms/nms.py, oks_iou (without its visibility mask, which the official code never uses).
    """
    variance = (2.0 * np.asarray(sigmas, dtype=np.float64)) ** 2
    if keypoints.shape[:1] != variance.shape or others.shape[1:2] != variance.shape:
        raise DataError(
            f"sigmas: got {variance.size} for keypoints {keypoints.shape} and {others.shape}; one per joint"
        )
    squared = np.square(others[..., :2] - keypoints[:, :2]).sum(axis=-1)
    size = (area + np.asarray(other_areas)) / 2 + np.spacing(1)
    return np.exp(-squared / variance / size[:, None] / 2).mean(axis=-1)


def oks_nms(
    keypoints: np.ndarray,
    score: np.ndarray,
    area: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    threshold: float = 0.9,
) -> np.ndarray:
    """Greedy suppression: keep the best pose, drop those more similar to it than `threshold`, repeat.

    Args:
        keypoints: (N, K, 2 or more) of one image.
        score, area: (N,).
        sigmas: (K,).

    Returns:
        Kept rows, best first, int64; equal scores in the order given.

    Source: hrnet lib/nms/nms.py, oks_nms.
    """
    order = np.argsort(-score, kind="stable")
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(best)
        order = rest[oks(keypoints[best], keypoints[rest], area[best], area[rest], sigmas) <= threshold]
    return np.array(keep, dtype=np.int64)


def soft_oks_nms(
    keypoints: np.ndarray,
    score: np.ndarray,
    area: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    threshold: float = 0.9,
    limit: int = MAX_DETECTIONS,
) -> np.ndarray:
    """Take the best pose, scale the scores of the rest by `exp(-oks² / threshold)`, repeat up to `limit`.

    Arguments and result as `oks_nms`; the faded scores only order the rows and are not returned, as in the
    official code.

    Source: hrnet lib/nms/nms.py, soft_oks_nms.
    """
    order = np.argsort(-score, kind="stable")
    faded = score[order]
    keep: list[int] = []
    while order.size and len(keep) < limit:
        best, rest = order[0], order[1:]
        keep.append(best)
        similar = oks(keypoints[best], keypoints[rest], area[best], area[rest], sigmas)
        faded = faded[1:] * np.exp(-(similar**2) / threshold)
        again = np.argsort(-faded, kind="stable")
        order, faded = rest[again], faded[again]
    return np.array(keep, dtype=np.int64)
