"""Skeletons, boxes and scores drawn on a picture."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from fastpose.errors import ConfigError, DataError, ImageError
from fastpose.infer.text import Color, put_tag
from fastpose.keypoints import KeypointSet

# Blue and orange stay apart for colour-blind eyes; the dark outline keeps all three off any background.
COLORS: dict[str, Color] = {"left": (255, 170, 40), "right": (30, 130, 255), "centre": (235, 235, 235)}
OUTLINE: Color = (25, 25, 25)
BOX_COLOR: Color = (120, 200, 70)
PERSON_PER_LINE = 85.0  # pixels of a person's height for each pixel of line width after the first
FRACTION_BITS = 4
FARTHEST = 2.0**20  # pixels; cv2 takes 32-bit fixed point, and nothing so far away would show


def draw_poses(
    image: np.ndarray,
    keypoints: ArrayLike,
    score: ArrayLike,
    keypoint_set: KeypointSet,
    *,
    boxes: ArrayLike | None = None,
    person_score: ArrayLike | None = None,
    threshold: float = 0.2,
) -> np.ndarray:
    """A copy of `image` with N skeletons: left limbs blue, right limbs orange, the middle light grey.

    image: (H, W, 3) uint8 BGR; (H, W), (H, W, 1) and BGRA (H, W, 4) are converted. keypoints: (N, K, 2) in
    image pixels. score: (N, K). A joint is drawn when its score is above `threshold` and above 0, and its
    coordinates are finite and not exactly (0, 0), which is how many tools write an absent joint. boxes:
    (N, 4) (x, y, width, height). person_score: (N,), written at the box or above the skeleton.
    Lines grow with the person; large persons are drawn first, so that they do not hide small ones.
    Returns (H, W, 3) uint8 BGR. Raises ImageError for an image of another kind, DataError for wrong shapes.
    """
    canvas = bgr_copy(image)
    points = _rows("keypoints", keypoints, (-1, keypoint_set.num_joints, 2))
    count = len(points)
    shown = _shown(points, _rows("score", score, (count, keypoint_set.num_joints)), threshold)
    frames = _rows("boxes", boxes, (count, 4))
    labels = _rows("person_score", person_score, (count,))
    joint_colors, limb_colors = _colors(keypoint_set)
    sizes = _person_sizes(points, shown, frames)
    for person in np.argsort(-sizes, kind="stable"):
        xy, use = points[person], shown[person]
        width = int(np.clip(1 + np.rint(sizes[person] / PERSON_PER_LINE), 1, 10))
        _draw_box(canvas, frames[person], width)
        _draw_limbs(canvas, xy, use, keypoint_set.skeleton, limb_colors, width)
        _draw_joints(canvas, xy, use, joint_colors, width)
        _draw_score(canvas, labels[person], frames[person], xy[use], width)
    return canvas


def check_threshold(threshold: Any) -> None:
    """ConfigError unless it is a number from 0 to 1."""
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise ConfigError(f"threshold: expected a score from 0 to 1, got {threshold!r}")


def bgr_copy(image: np.ndarray) -> np.ndarray:
    """A picture of one of the kinds that `draw_poses` takes as a new (H, W, 3) array; else ImageError."""
    if not isinstance(image, np.ndarray):
        raise ImageError(f"image: expected a numpy array, got {type(image).__name__}")
    shape = image.shape if image.ndim == 3 else (*image.shape, 1)
    if image.dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3, 4) or not image.size:
        raise ImageError(f"image: expected uint8 (H, W, 3) in BGR order, got {image.dtype} {image.shape}")
    if shape[2] == 1:
        return np.repeat(image.reshape(shape), 3, axis=2)
    return np.array(image[..., :3], order="C")


def _rows(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    """The argument as float64 of that shape (-1: any); nan throughout when it was not given."""
    if values is None:
        return np.full(shape, np.nan)
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 and shape[0] in (-1, 0):
        return np.zeros((0, *shape[1:]))
    free = shape[0] == -1 and array.ndim > 0
    if array.shape != ((len(array), *shape[1:]) if free else shape):
        raise DataError(f"{name}: expected shape {str(shape).replace('-1', 'N')}, got {array.shape}")
    return array


def _shown(points: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """(N, K) bool; a nan score compares false and so hides its joint."""
    inside = (np.abs(points) < FARTHEST).all(axis=2)
    return (score > max(threshold, 0.0)) & inside & (points != 0).any(axis=2)


def _person_sizes(points: np.ndarray, shown: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(N,) the longer side in pixels of the box, or without a box of the joints that show."""
    sizes = np.zeros(len(points))
    for person, (xy, use, frame) in enumerate(zip(points, shown, frames, strict=True)):
        if _drawable(frame):
            sizes[person] = frame[2:].max()
        elif use.any():
            sizes[person] = np.ptp(xy[use], axis=0).max()
    return sizes


def _drawable(frame: np.ndarray) -> bool:
    return bool((np.abs(frame) < FARTHEST).all() and (frame[2:] > 0).all())


def _colors(keypoint_set: KeypointSet) -> tuple[list[Color], list[Color]]:
    """Colours of the joints and of the limbs; a limb from a side to the middle takes the side's colour."""
    sides = ["centre"] * keypoint_set.num_joints
    for pair in keypoint_set.flip_pairs:
        first_is_right = bool(re.match(r"r(ight|[^a-z]|[A-Z])", keypoint_set.names[pair[0]], re.IGNORECASE))
        sides[pair[0]], sides[pair[1]] = ("right", "left") if first_is_right else ("left", "right")
    limbs = []
    for ends in keypoint_set.skeleton:
        found = {sides[end] for end in ends} - {"centre"}
        limbs.append(COLORS[found.pop() if len(found) == 1 else "centre"])
    return [COLORS[side] for side in sides], limbs


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.rint(point * (1 << FRACTION_BITS)).astype(np.int64)
    return int(x), int(y)


def _draw_limbs(
    canvas: np.ndarray, xy: np.ndarray, use: np.ndarray, skeleton: tuple, colors: list[Color], width: int
) -> None:
    limbs = [(a, b, color) for (a, b), color in zip(skeleton, colors, strict=True) if use[a] and use[b]]
    rim = 2 * max(1, width // 3)
    for outline in (True, False) if width > 1 else (False,):
        for a, b, color in limbs:
            # Short limbs (a face) get thin lines, or they would melt into one blot.
            thin = int(np.clip(np.hypot(*(xy[a] - xy[b])) / 6, 1, width))
            ink, thickness = (OUTLINE, thin + rim) if outline else (color, thin)
            cv2.line(canvas, _fixed(xy[a]), _fixed(xy[b]), ink, thickness, cv2.LINE_AA, FRACTION_BITS)


def _draw_joints(
    canvas: np.ndarray, xy: np.ndarray, use: np.ndarray, colors: list[Color], width: int
) -> None:
    for joint in np.flatnonzero(use):
        gaps = np.hypot(*(xy[use] - xy[joint]).T)
        near = gaps[gaps > 0].min(initial=np.inf)
        radius = float(np.clip(near / 3, 0.6 + 0.4 * width, 0.6 + 0.9 * width))
        rim = max(1.0, width / 3) if width > 1 else 0.0
        for ink, size in ((OUTLINE, radius + rim), (colors[joint], radius)):
            scaled = round(size * (1 << FRACTION_BITS))
            cv2.circle(canvas, _fixed(xy[joint]), scaled, ink, cv2.FILLED, cv2.LINE_AA, FRACTION_BITS)


def _draw_box(canvas: np.ndarray, frame: np.ndarray, width: int) -> None:
    if not _drawable(frame):
        return
    first, last = np.rint(frame[:2]).astype(int), np.rint(frame[:2] + frame[2:]).astype(int)
    cv2.rectangle(canvas, first.tolist(), last.tolist(), BOX_COLOR, max(1, width // 2))


def _draw_score(canvas: np.ndarray, label: float, frame: np.ndarray, xy: np.ndarray, width: int) -> None:
    if not np.isfinite(label):
        return
    if _drawable(frame):
        left, bottom = frame[:2]
    elif len(xy):
        left, bottom = xy.min(axis=0) - 3 * width
    else:
        return
    height = float(np.clip(5 + 1.5 * width, 7, 14))
    put_tag(canvas, f"{label:.2f}", round(left), round(bottom), height, BOX_COLOR)
