"""COCO keypoint results: official rescoring and OKS-NMS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastpose.errors import DataError
from fastpose.metrics.oks import oks_nms, soft_oks_nms

logger = logging.getLogger(__name__)

SUPPRESSION: dict[str, Callable[..., np.ndarray] | None] = {
    "hard": oks_nms,
    "soft": soft_oks_nms,
    "none": None,
}


def coco_results(
    image_ids: np.ndarray,
    keypoints: np.ndarray,
    area: np.ndarray,
    box_score: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    *,
    nms: str = "hard",
    in_vis_thre: float = 0.2,
    oks_thre: float = 0.9,
    category_id: int = 1,
) -> list[dict[str, Any]]:
    """Rows of a COCO results file: score = box score × mean of the joint scores above `in_vis_thre`.

    A warning counts the persons left out as not finite, which pycocotools would score as perfect.
    The order of the rows does not matter.

    Args:
        image_ids, area, box_score: (N,); the area of the padded crop box, `prod(scale * 200)`.
        keypoints, sigmas: (N, K, 3), x and y in image pixels and the joint's score; (K,).
        nms: hard | soft | none, OKS-NMS with threshold `oks_thre` in each image; `soft` keeps at most 20.

    Returns: one dict per kept person, with image_id, category_id, keypoints (3K numbers) and score.
    Raises: DataError when shapes disagree or `nms` is unknown.
    Source: hrnet lib/dataset/coco.py, evaluate.
    """
    _check_rows(image_ids, keypoints, area, box_score, sigmas, nms)
    suppress = SUPPRESSION[nms]
    score = _person_score(keypoints[..., 2], in_vis_thre) * box_score
    kept: list[int] = []
    for rows in _rows_per_image(image_ids, keypoints, area, score):
        if suppress is not None:
            rows = rows[suppress(keypoints[rows], score[rows], area[rows], sigmas, oks_thre)]
        kept += rows.tolist()
    flat = keypoints[kept].reshape(len(kept), 3 * len(sigmas))
    columns = image_ids[kept].tolist(), flat.tolist(), score[kept].tolist()
    return [
        {"image_id": image_id, "category_id": category_id, "keypoints": values, "score": value}
        for image_id, values, value in zip(*columns, strict=True)
    ]


def _check_rows(
    image_ids: np.ndarray,
    keypoints: np.ndarray,
    area: np.ndarray,
    box_score: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    nms: str,
) -> None:
    if nms not in SUPPRESSION:
        raise DataError(f"nms: expected one of {', '.join(SUPPRESSION)}, got {nms!r}")
    count = len(image_ids)
    if keypoints.shape != (count, len(sigmas), 3):
        raise DataError(
            f"keypoints: expected ({count}, {len(sigmas)}, 3), from {count} image_ids and {len(sigmas)} "
            f"sigmas; got {keypoints.shape}"
        )
    for name, value in (("area", area), ("box_score", box_score)):
        if value.shape != (count,):
            raise DataError(f"{name}: expected ({count},), got {value.shape}")


def _person_score(joint_score: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) mean of the joint scores above the threshold; 0 where none is."""
    counted = joint_score > threshold
    return np.where(counted, joint_score, 0.0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def _rows_per_image(
    image_ids: np.ndarray, keypoints: np.ndarray, area: np.ndarray, score: np.ndarray
) -> list[np.ndarray]:
    """Finite rows of each image, best first; equal scores are ordered by the pose, never by arrival."""
    finite = np.isfinite(keypoints).all(axis=(1, 2)) & np.isfinite(area) & np.isfinite(score)
    if not finite.all():
        logger.warning("left out %d of %d persons that are not finite", int((~finite).sum()), len(finite))
    rows = np.flatnonzero(finite)
    if not len(rows):
        return []
    x, y = keypoints[rows, :, :2].sum(axis=1).T
    rows = rows[np.lexsort((y, x, area[rows], -score[rows], image_ids[rows]))]
    starts = np.flatnonzero(image_ids[rows[1:]] != image_ids[rows[:-1]]) + 1
    return np.split(rows, starts)
