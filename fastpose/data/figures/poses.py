"""Random poses within human joint limits: tables of postures, and the angles drawn from them."""

from __future__ import annotations

import numpy as np

JOINTS = (
    "root", "torso", "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

JOINT_LIMITS = {
    "torso": ((-20, 70), (-25, 25), (-35, 35)),
    "head": ((-35, 40), (-25, 25), (-65, 65)),
    "shoulder": ((-45, 175), (-15, 170), (-85, 90)),
    "elbow": ((0, 145), (0, 0), (0, 0)),
    "hip": ((-25, 120), (-15, 50), (-35, 40)),
    "knee": ((0, 140), (0, 0), (0, 0)),
    "ankle": ((-20, 40), (0, 0), (-20, 25)),
}
"""Degrees per axis: (flexion or forward bend, abduction or sideways bend, outward rotation or turn). Passive
ranges of motion of adults, a little inside the usual clinical tables (e.g. AAOS Joint Motion, 1965)."""

# One row: (shoulder flexion, shoulder abduction, outward rotation of the upper arm, elbow flexion).
_ARMS = {
    "hanging": (0.24, (-15, 20), (3, 18), (-30, 20), (0, 35)),
    "swinging": (0.20, (-35, 40), (3, 14), (-25, 15), (10, 70)),
    "reaching": (0.10, (40, 100), (-10, 25), (-40, 30), (0, 70)),
    "folded": (0.10, (10, 45), (0, 20), (-75, -35), (70, 120)),
    "akimbo": (0.08, (-25, -5), (30, 55), (-85, -50), (75, 110)),
    "sideways": (0.07, (-10, 15), (55, 110), (-30, 60), (0, 45)),
    "raised": (0.08, (-10, 20), (115, 165), (0, 80), (0, 60)),
    "overhead": (0.04, (130, 172), (-5, 25), (-30, 30), (0, 70)),
    "waving": (0.05, (-5, 20), (60, 100), (50, 90), (60, 125)),
    "at_face": (0.04, (30, 70), (5, 35), (-60, -20), (115, 142)),
}

# One row: forward bend of the torso, then (hip flexion, abduction, outward rotation, knee flexion) of one leg
# and of the other where it differs.
_LEGS = {
    "standing": (0.30, (-5, 15), ((-5, 12), (0, 10), (0, 20), (0, 12))),
    "walking": (0.20, (-2, 15), ((15, 42), (0, 8), (0, 10), (0, 25)), ((-24, -5), (0, 8), (0, 15), (5, 40))),
    "running": (0.08, (5, 30), ((45, 85), (0, 9), (0, 10), (60, 110)), ((-22, 5), (0, 8), (0, 9), (20, 90))),
    "astride": (0.12, (-5, 30), ((-5, 20), (14, 36), (5, 25), (0, 20))),
    "sitting": (0.14, (-15, 25), ((75, 100), (0, 25), (-5, 15), (65, 110))),
    "squatting": (0.05, (10, 45), ((80, 116), (10, 35), (5, 25), (95, 138))),
    "kneeling": (0.04, (-5, 25), ((65, 95), (0, 9), (0, 9), (80, 99)), ((-9, 15), (0, 8), (0, 5), (85, 115))),
    "kicking": (0.04, (-15, 9), ((35, 95), (-5, 20), (0, 9), (0, 45)), ((-5, 10), (0, 8), (0, 9), (0, 15))),
    "bending": (0.03, (40, 68), ((5, 30), (0, 10), (0, 15), (0, 35))),
}  # fmt: skip

_ARM_SHARE = np.cumsum([row[0] for row in _ARMS.values()])
_ARM_RANGE = np.array([row[1:] for row in _ARMS.values()], dtype=np.float64)  # (A, 4, 2)
_LEG_SHARE = np.cumsum([row[0] for row in _LEGS.values()])
_BEND_RANGE = np.array([row[1] for row in _LEGS.values()], dtype=np.float64)  # (L, 2)
_LEG_RANGE = np.array([(row[2], row[-1]) for row in _LEGS.values()], dtype=np.float64)  # (L, 2 legs, 4, 2)
_BODY_RANGE = np.array([[-12, 12], [-20, 20], [-22, 30], [-12, 12], [-45, 45]], dtype=np.float64)
_ANKLE_RANGE = np.array([[-10, 25], [-5, 20]], dtype=np.float64)

POSE_NUMBERS = 31
"""How many uniform numbers `sample_angles` consumes per person."""


def _within(limits: np.ndarray, u: np.ndarray) -> np.ndarray:
    return limits[..., 0] + u * (limits[..., 1] - limits[..., 0])


def sample_angles(u: np.ndarray) -> np.ndarray:
    """Joint angles of P persons, (P, 13, 3) float64 degrees by `JOINTS` and the axes of `JOINT_LIMITS`.

    u: (P, POSE_NUMBERS) uniform in [0, 1). Angles have the person's sense (abduction is away from the body
    on both sides), so left and right have the same limits. The root stays zero: the composition turns it.
    """
    people = len(u)
    angles = np.zeros((people, len(JOINTS), 3))
    legs = np.searchsorted(_LEG_SHARE[:-1], u[:, 0], side="right")
    arms = np.searchsorted(_ARM_SHARE[:-1], u[:, 1:3], side="right")  # (P, 2)
    arms[:, 1] = np.where(u[:, 3] < 0.35, arms[:, 0], arms[:, 1])
    leg_range = _LEG_RANGE[legs]  # (P, 2, 4, 2)
    swap = u[:, 4] < 0.5
    leg_range[swap] = leg_range[swap, ::-1]

    body = _within(_BODY_RANGE, u[:, 5:10])
    angles[:, 1, 0] = _within(_BEND_RANGE[legs], u[:, 10])
    angles[:, 1, 1:] = body[:, :2]
    angles[:, 2] = body[:, 2:]
    arm = _within(_ARM_RANGE[arms], u[:, 11:19].reshape(people, 2, 4))
    angles[:, 3:5] = arm[..., :3]
    angles[:, 5:7, 0] = arm[..., 3]
    leg = _within(leg_range, u[:, 19:27].reshape(people, 2, 4))
    angles[:, 7:9] = leg[..., :3]
    angles[:, 9:11, 0] = leg[..., 3]
    ankle = _within(_ANKLE_RANGE, u[:, 27:31].reshape(people, 2, 2))
    angles[:, 11:13, 0] = ankle[..., 0]
    angles[:, 11:13, 2] = ankle[..., 1]
    return angles
