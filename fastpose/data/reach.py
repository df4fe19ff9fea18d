"""How much of a picture an augmentation can ever show of a person."""

from __future__ import annotations

import math

import numpy as np

from fastpose.data.affine import PIXELS_PER_SCALE, box_to_center_scale
from fastpose.data.augment import HALF_BODY_PADDING, Augmentation
from fastpose.data.persons import PersonTable

# Bilinear reading touches the pixel after, a mirrored crop is off by one, and three points of the matrix
# are rounded to float32.
_MARGIN, _RELATIVE_MARGIN = 2.0, 1e-5


def reach(table: PersonTable, augmentation: Augmentation | None, aspect_ratio: float) -> np.ndarray:
    """(N, 4) float64: left, top, right, bottom in picture pixels of all that a crop of each person can show.

    A crop is a rectangle of w = 200 scale pixels by w / `aspect_ratio` about the person's centre. It is
    enlarged by up to 1 + scale_factor and turned by up to twice rotation_factor degrees, so that it stays
    within +-(a cos t + b sin t) for the worst t, a and b being half its sides; and where the half body may
    be cut out, that rectangle's reach is joined on for either half. Mirroring does not change the reach.
    None as augmentation gives the plain crops. May lie outside the picture; `clip_reach` cuts it.
    """
    spread = 1.0 + (augmentation.scale_factor if augmentation else 0.0)
    turn = (
        math.radians(2 * augmentation.rotation_factor) if augmentation and augmentation.rotation_prob else 0.0
    )
    boxes = [_extent(table.center, table.scale[:, 0] * spread, aspect_ratio, turn)]
    if augmentation and augmentation.half_body_prob > 0:
        possible = table.visible.sum(1) > augmentation.half_body_joints
        is_upper = np.zeros(table.keypoints.num_joints, bool)
        is_upper[list(table.keypoints.upper_body)] = True
        for half in (is_upper, ~is_upper):
            center, scale, cut = _half_body(table, half, aspect_ratio)
            box = _extent(center, scale[:, 0] * spread, aspect_ratio, turn)
            boxes.append(np.where((possible & cut)[:, None], box, boxes[0]))
    every = np.stack(boxes)
    return np.concatenate([every[..., :2].min(0), every[..., 2:].max(0)], 1)


def clip_reach(box: np.ndarray, size: np.ndarray, align: int = 1) -> np.ndarray:
    """(N, 4) int64: first x and y, and x and y past the last, of the pixels in reach.

    `box` (N, 4) as from `reach`, `size` (N, 2) width and height of the pictures. The corners move outwards
    to multiples of `align` inside the picture. Where nothing of the picture is in reach, one pixel is left.
    """
    first = np.clip(np.floor(box[:, :2]), 0, size - 1).astype(np.int64)
    end = np.clip(np.ceil(box[:, 2:]) + 1, first + 1, size).astype(np.int64)
    return np.concatenate([first // align * align, np.minimum(-(-end // align) * align, size)], 1)


def _extent(center: np.ndarray, scale: np.ndarray, aspect_ratio: float, turn: float) -> np.ndarray:
    half_width = scale.astype(np.float64) * (PIXELS_PER_SCALE / 2)
    half_height = half_width / aspect_ratio
    across = _worst(half_width, half_height, turn)
    along = _worst(half_height, half_width, turn)
    half = np.stack([across, along], 1)
    half += _MARGIN + _RELATIVE_MARGIN * half
    return np.concatenate([center - half, center + half], 1)


def _worst(a: np.ndarray, b: np.ndarray, turn: float) -> np.ndarray:
    """The largest a cos t + b sin t for t from 0 to `turn`: it grows up to the diagonal and falls after."""
    t = np.minimum(np.arctan2(b, a), turn)
    return a * np.cos(t) + b * np.sin(t)


def _half_body(
    table: PersonTable, half: np.ndarray, aspect_ratio: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and scale of the crop about the visible joints of one `half`, and where there is such a crop."""
    chosen = (table.visible > 0) & half
    count = chosen.sum(1)
    shown = chosen[..., None]
    joints = table.joints.astype(np.float32)
    low = np.where(shown, joints, np.inf).min(1, initial=np.inf)
    high = np.where(shown, joints, -np.inf).max(1, initial=-np.inf)
    low, high = (np.where(count[:, None] > 0, corner, 0.0) for corner in (low, high))
    mean = np.where(shown, joints, 0.0).sum(1, dtype=np.float64) / np.maximum(count, 1)[:, None]
    _, scale = box_to_center_scale(np.concatenate([low, high - low], 1), aspect_ratio, HALF_BODY_PADDING)
    return mean, scale, (count >= 2) & (high > low).any(1)
