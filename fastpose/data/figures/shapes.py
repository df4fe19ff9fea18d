"""From bodies in space to flat convex shapes in painter's order: what covers what, and which part it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from fastpose.data.figures.skeleton import POINT, Bodies

PARTS = (
    "background", "head", "neck", "torso", "pelvis", "left_upper_arm", "right_upper_arm", "left_forearm",
    "right_forearm", "left_hand", "right_hand", "left_thigh", "right_thigh", "left_shin", "right_shin",
    "left_foot", "right_foot",
)  # fmt: skip
"""Names of the values in a part mask."""
PART = {name: i for i, name in enumerate(PARTS)}

SKIN, SHIRT, TROUSERS, SHOES, HAIR = range(5)
FIXED_POINT = 4
"""Shape coordinates are pixels x 16, as cv2's drawing functions take them with this shift."""


class Shape(NamedTuple):
    """One convex piece of a figure."""

    outline: np.ndarray  # (n, 2) int32, fixed-point pixels
    part: int
    colour: int  # SKIN ... HAIR
    core: np.ndarray | None  # inner outline for shading, None: the outline shrunk
    details: str = ""  # what is drawn on it, see details.py


@dataclass
class View:
    """Weak-perspective cameras, one per person: metres -> pixels of the picture."""

    distance: np.ndarray  # (P,) metres
    scale: np.ndarray  # (P,) pixels per metre at the pelvis
    origin: np.ndarray  # (P, 2) pixels of the pelvis

    def rows(self, rows: slice) -> View:
        """Some of the cameras."""
        return View(self.distance[rows], self.scale[rows], self.origin[rows])

    def zoom(self, depth: np.ndarray) -> np.ndarray:
        """(P, ...) pixels per metre at that depth (metres towards the viewer)."""
        shape = (-1, *[1] * (depth.ndim - 1))
        return self.scale.reshape(shape) / (1 - depth / self.distance.reshape(shape))

    def project(self, points: np.ndarray) -> np.ndarray:
        """(P, ..., 3) metres in the camera frame -> (P, ..., 2) pixels."""
        flat = points[..., :2] * self.zoom(points[..., 2])[..., None]
        flat[..., 1] *= -1
        return flat + self.origin.reshape(-1, *[1] * (points.ndim - 2), 2)


# Capsules: start, end, radii in metres, part. Three groups follow whose end lies between or beside points.
_LIMBS = tuple(
    (f"{side}_{a}", f"{side}_{b}", ra, rb, f"{side}_{part}")
    for a, b, ra, rb, part in (
        ("shoulder", "elbow", 0.050, 0.040, "upper_arm"),
        ("elbow", "wrist", 0.040, 0.027, "forearm"),
        ("wrist", "hand", 0.031, 0.028, "hand"),
        ("hip", "knee", 0.082, 0.056, "thigh"),
        ("knee", "ankle", 0.057, 0.036, "shin"),
        ("heel", "toe", 0.040, 0.030, "foot"),
    )
    for side in ("left", "right")
)
_START = np.array([POINT[row[0]] for row in _LIMBS])
_END = np.array([POINT[row[1]] for row in _LIMBS])
_RADII = np.array([row[2:4] for row in _LIMBS])
LIMB_PARTS = tuple(PART[row[4]] for row in _LIMBS)
# Nudges of the painter's order (metres): arms lie on the trunk, legs come out from under it.
_NUDGE = np.array([0.03, 0.03, 0.05, 0.05, 0.07, 0.07, -0.13, -0.13, -0.11, -0.11, -0.10, -0.10])
SLEEVE, SHORTS, NECK, HAIR_TAIL = 12, 14, 16, 17
_ARC = np.linspace(0.0, 1.0, 8)
CIRCLE = np.stack([np.cos(np.arange(20) * np.pi / 10), np.sin(np.arange(20) * np.pi / 10)], axis=-1)


def capsules(a: np.ndarray, b: np.ndarray, ra: np.ndarray, rb: np.ndarray) -> np.ndarray:
    """Convex outlines of tapered limbs with round ends: (..., 2) centres and (...) radii -> (..., 16, 2)."""
    along = b - a
    length = np.hypot(along[..., 0], along[..., 1])
    ra, rb = np.maximum(ra, rb - length), np.maximum(rb, ra - length)
    heading = np.arctan2(along[..., 1], along[..., 0])[..., None]
    lean = np.arccos(np.clip((ra - rb) / np.maximum(length, 1e-9), -1, 1))[..., None]
    far = heading + lean + 2 * _ARC * (np.pi - lean)
    turn = np.concatenate([far, heading - lean + 2 * _ARC * lean], axis=-1)
    out = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    out[..., :8, :] = a[..., None, :] + ra[..., None, None] * out[..., :8, :]
    out[..., 8:, :] = b[..., None, :] + rb[..., None, None] * out[..., 8:, :]
    return out


def fixed(points: np.ndarray) -> np.ndarray:
    """Float pixels -> the int32 fixed-point numbers that are drawn.

    Rounding here, and only here, keeps pictures equal where the last bit of a sine is not.
    """
    return np.rint(points * (1 << FIXED_POINT)).astype(np.int32)


def limb_outlines(
    bodies: Bodies, view: View, long_sleeves: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outlines and shading cores (P, 18, 16, 2) of all capsules in fixed-point pixels, and depths (P, 18)."""
    points = bodies.points
    start, end = points[:, _START], points[:, _END]
    radius = np.broadcast_to(_RADII, (len(points), *_RADII.shape)) * bodies.girth[:, None, None]
    radius[:, :4] *= np.where(long_sleeves, 1.15, 1.0)[:, None, None]
    sleeve_end = 0.42 * start[:, 0:2] + 0.58 * end[:, 0:2]
    shorts_end = 0.28 * start[:, 6:8] + 0.72 * end[:, 6:8]
    nape = bodies.head_center - 0.03 * bodies.head[..., 2]
    tail = nape - 0.24 * bodies.torso[..., 1] - 0.075 * bodies.torso[..., 2]
    more_start = np.stack([points[:, POINT["thorax"]], nape], axis=1)
    more_end = np.stack([points[:, POINT["neck"]], tail], axis=1)
    start = np.concatenate([start, start[:, 0:2], start[:, 6:8], more_start], axis=1)
    end = np.concatenate([end, sleeve_end, shorts_end, more_end], axis=1)
    extra = np.array([[0.060, 0.058]] * 2 + [[0.088, 0.080]] * 2 + [[0.056, 0.050], [0.095, 0.080]])
    radius = np.concatenate([radius, extra * bodies.girth[:, None, None]], axis=1)

    depth = (start[..., 2] + end[..., 2]) / 2
    key = depth.copy()
    key[:, :12] += _NUDGE
    key[:, SLEEVE : SLEEVE + 2] = key[:, 0:2] + 1e-3
    key[:, SHORTS : SHORTS + 2] = key[:, 6:8] + 1e-3
    zoom = view.zoom(depth)
    a, b = view.project(start), view.project(end)
    ra, rb = radius[..., 0] * zoom, radius[..., 1] * zoom
    return fixed(capsules(a, b, ra, rb)), fixed(capsules(a, b, 0.45 * ra, 0.45 * rb)), key


def head_outlines(bodies: Bodies, view: View) -> np.ndarray:
    """Silhouettes of the head ellipsoids, (P, 20, 2) pixels."""
    zoom = view.zoom(bodies.head_center[:, 2])[:, None, None]
    spread = bodies.head[:, :2] * bodies.head_axes[:, None] * zoom * [[1], [-1]]
    square = spread @ spread.transpose(0, 2, 1)  # its square root maps the unit circle onto the silhouette
    root_det = np.sqrt(square[:, 0, 0] * square[:, 1, 1] - square[:, 0, 1] ** 2)[:, None, None]
    trace = np.trace(square, axis1=1, axis2=2)[:, None, None]
    half = (square + root_det * np.eye(2)) / np.sqrt(trace + 2 * root_det)
    return view.project(bodies.head_center)[:, None] + CIRCLE @ half


_RING = np.stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)], axis=-1)


def trunk_rings(bodies: Bodies) -> np.ndarray:
    """Cross-sections of the trunk, (P, 4, 12, 3) metres: hips, hem, waist, chest, bottom to top."""
    root, torso, girth = bodies.root, bodies.torso, bodies.girth
    lumbar = 0.11 * root[..., 1]
    waist, chest = lumbar + 0.07 * torso[..., 1], lumbar + 0.27 * torso[..., 1]
    centers = np.stack([0 * lumbar, 0.4 * lumbar, waist, chest], axis=1)
    frames = np.stack([root, root, torso, torso], axis=1)
    half = np.array([[0.150, 0.108], [0.152, 0.108], [0.133, 0.098], [0.150, 0.112]]) * girth[:, None, None]
    half[:, 3, 0] = bodies.shoulder * 0.93
    left, forward = frames[..., 0] * half[..., 0:1], frames[..., 2] * half[..., 1:2]  # (P, 4, 3)
    ring = _RING[:, 0:1] * left[:, :, None] + _RING[:, 1:2] * forward[:, :, None]
    return centers[:, :, None] + ring


def hull(*points: np.ndarray) -> np.ndarray:
    """Convex outline of fixed-point points."""
    return cv2.convexHull(np.concatenate(points)).reshape(-1, 2)
