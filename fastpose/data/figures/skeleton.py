"""Bodies in space: proportions, forward kinematics, and the points a figure is drawn and labelled by.

Axes of a body frame: x to the person's left, y up, z forward; of the camera: x right, y up, z to the viewer.
Lengths are metres for a person 1.75 m tall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastpose.data.figures.poses import JOINTS
from fastpose.keypoints import COCO_17

LANDMARKS = (*COCO_17.names, "pelvis", "thorax", "neck", "head_top")
"""Every joint that a keypoint set may ask for by name."""
POINTS = (*LANDMARKS, "left_hand", "right_hand", "left_heel", "right_heel", "left_toe", "right_toe")
POINT = {name: i for i, name in enumerate(POINTS)}

BODY_NUMBERS = 6
"""How many uniform numbers `build_bodies` consumes per person."""

FACE_DIRECTIONS = np.array(
    [[0, -0.22, 0.97], [0.40, 0.10, 0.91], [-0.40, 0.10, 0.91], [0.99, -0.08, -0.05], [-0.99, -0.08, -0.05]]
)
"""Nose, eyes, ears on the unit sphere whose image is the head (left, up, forward)."""
_FACE_OUT = np.array([1.14, 1.0, 1.0, 1.03, 1.03])  # how far from the surface they sit

# Signs that turn the person's sense of an angle into rotations about (x, z, y) of the body frame.
_SIGNS = np.ones((len(JOINTS), 3))
for _name in ("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_hip", "right_hip"):
    _SIGNS[JOINTS.index(_name), 0] = -1
for _i, _name in enumerate(JOINTS):
    if _name.startswith("right_"):
        _SIGNS[_i, 1:] *= -1


@dataclass
class Bodies:
    """P bodies in the camera frame, pelvis at the origin, float64."""

    points: np.ndarray  # (P, 27, 3), order of POINTS
    root: np.ndarray  # (P, 3, 3), columns are the pelvis' left, up, forward
    torso: np.ndarray  # (P, 3, 3)
    head: np.ndarray  # (P, 3, 3)
    head_center: np.ndarray  # (P, 3)
    head_axes: np.ndarray  # (P, 3), half width, half height, half depth
    girth: np.ndarray  # (P,), factor on every thickness
    shoulder: np.ndarray  # (P,), half the shoulder width

    def rows(self, rows: slice) -> Bodies:
        """Some of the bodies."""
        return Bodies(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def rotations(degrees: np.ndarray) -> np.ndarray:
    """(..., 3) degrees (a about x, b about z, c about y) -> (..., 3, 3) matrices Rx(a) Rz(b) Ry(c)."""
    radians = np.deg2rad(degrees)
    cosine, sine = np.cos(radians), np.sin(radians)
    ca, cb, cc = cosine[..., 0], cosine[..., 1], cosine[..., 2]
    sa, sb, sc = sine[..., 0], sine[..., 1], sine[..., 2]
    out = np.empty((*degrees.shape, 3))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = cb * cc, -sb, cb * sc
    sbcc, sbsc = sb * cc, sb * sc
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = ca * sbcc + sa * sc, ca * cb, ca * sbsc - sa * cc
    out[..., 2, 0], out[..., 2, 1], out[..., 2, 2] = sa * sbcc - ca * sc, sa * cb, sa * sbsc + ca * cc
    return out


def build_bodies(angles: np.ndarray, u: np.ndarray) -> Bodies:
    """Forward kinematics of P persons.

    angles: (P, 13, 3) degrees as `sample_angles`, with the root filled in (tilt of the camera, roll, yaw).
    u: (P, BODY_NUMBERS) uniform in [0, 1), the proportions.
    """
    girth = 0.88 + 0.34 * u[:, 0]
    shoulder = (0.155 + 0.035 * u[:, 1]) * (0.7 + 0.3 * girth)
    hip, leg = 0.085 + 0.02 * u[:, 2], 0.94 + 0.12 * u[:, 3]
    axes = (0.97 + 0.16 * u[:, 4:5] ** 2) * np.array([0.078, 0.118, 0.098])
    turn = rotations(angles * _SIGNS)  # (P, 13, 3, 3)
    root = turn[:, 0]
    torso = root @ turn[:, 1]
    head = torso @ turn[:, 2]
    thorax = 0.11 * root[..., 1] + 0.39 * torso[..., 1]
    neck = thorax + 0.055 * torso[..., 1] + 0.04 * head[..., 1] + 0.01 * torso[..., 2]
    center = neck + (axes[:, 1:2] - 0.018) * head[..., 1] + 0.015 * head[..., 2]

    points = np.zeros((len(angles), len(POINTS), 3))
    face = (FACE_DIRECTIONS * _FACE_OUT[:, None]) * axes[:, None]  # (P, 5, 3)
    points[:, 0:5] = center[:, None] + face @ head.transpose(0, 2, 1)
    points[:, POINT["thorax"]], points[:, POINT["neck"]] = thorax, neck
    points[:, POINT["head_top"]] = center + 0.95 * axes[:, 1:2] * head[..., 1]
    _add_arms(points, turn, torso, shoulder)
    _add_legs(points, turn, hip, leg)
    return Bodies(points, root, torso, head, center, axes, girth, shoulder)


_SIDE = np.array([1.0, -1.0])[:, None]  # left, right


def _add_arms(points: np.ndarray, turn: np.ndarray, torso: np.ndarray, shoulder: np.ndarray) -> None:
    """Shoulders, elbows, wrists, hands; a raised arm lifts its shoulder and draws it in."""
    up, left = torso[:, None, :, 1], torso[:, None, :, 0]
    arm = torso[:, None] @ turn[:, 3:5]  # (P, 2, 3, 3), the arm points along its -y
    forearm = arm @ turn[:, 5:7]
    lowered = (arm[..., 1] * up).sum(axis=-1, keepdims=True)  # 1 hanging, -1 overhead
    raised = np.clip(0.5 - lowered, 0, 1.3)
    at_rest = points[:, POINT["thorax"], None] - 0.035 * up + _SIDE * shoulder[:, None, None] * left
    hand = POINT["left_hand"]
    points[:, 5:7] = at_rest + raised * (0.045 * up - 0.018 * _SIDE * left)
    points[:, 7:9] = points[:, 5:7] - 0.285 * arm[..., 1]
    points[:, 9:11] = points[:, 7:9] - 0.245 * forearm[..., 1]
    points[:, hand : hand + 2] = points[:, 9:11] - 0.085 * forearm[..., 1]


def _add_legs(points: np.ndarray, turn: np.ndarray, hip: np.ndarray, leg: np.ndarray) -> None:
    """Hips, knees, ankles, heels, toes and the pelvis; `hip` (P,) half width, `leg` (P,) factor on length."""
    root = turn[:, 0:1]
    thigh = root @ turn[:, 7:9]
    shin = thigh @ turn[:, 9:11]
    foot = shin @ turn[:, 11:13]
    leg = leg[:, None, None]
    heel, toe = POINT["left_heel"], POINT["left_toe"]
    points[:, 11:13] = -0.02 * root[..., 1] + _SIDE * hip[:, None, None] * root[..., 0]
    points[:, 13:15] = points[:, 11:13] - 0.425 * leg * thigh[..., 1]
    points[:, 15:17] = points[:, 13:15] - 0.405 * leg * shin[..., 1]
    sole = points[:, 15:17] - 0.045 * foot[..., 1]
    points[:, heel : heel + 2] = sole - 0.03 * foot[..., 2]
    points[:, toe : toe + 2] = sole + 0.15 * foot[..., 2] - 0.012 * foot[..., 1]
    points[:, POINT["pelvis"]] = points[:, 11:13].mean(axis=1)


def toward_camera(bodies: Bodies, directions: np.ndarray) -> np.ndarray:
    """(P, F) cosines between the camera and the head's surface at (F, 3) directions of its unit sphere."""
    view = bodies.head[:, 2] / bodies.head_axes
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    return view @ directions.T
