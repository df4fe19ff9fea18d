"""Bodies and poses of rendered figures: joint limits, kinematics, left and right."""

import numpy as np
import pytest

from fastpose.data.figures.poses import JOINT_LIMITS, JOINTS, POSE_NUMBERS, sample_angles
from fastpose.data.figures.shapes import capsules
from fastpose.data.figures.skeleton import BODY_NUMBERS, LANDMARKS, POINT, POINTS, build_bodies

PEOPLE = 3000
BONES = {
    "upper arm": ("left_shoulder", "left_elbow"),
    "forearm": ("right_elbow", "right_wrist"),
    "thigh": ("right_hip", "right_knee"),
    "shin": ("left_knee", "left_ankle"),
    "hips": ("left_hip", "right_hip"),
    "eyes": ("left_eye", "right_eye"),
}


def body(**angles):
    """One body of middle proportions facing the viewer, arms and legs straight down but for `angles`."""
    table = np.zeros((1, len(JOINTS), 3))
    for joint, values in angles.items():
        table[0, JOINTS.index(joint)] = values
    points = build_bodies(table, np.full((1, BODY_NUMBERS), 0.5)).points[0]
    return {name: points[i] for i, name in enumerate(POINTS)}


def pose_draws():
    draws = np.random.default_rng(3).random((PEOPLE, POSE_NUMBERS))
    edge = 1 - 2**-53
    return np.concatenate(
        [draws, np.zeros((1, POSE_NUMBERS)), np.full((1, POSE_NUMBERS), edge), draws.round()]
    )


@pytest.mark.parametrize("joint", JOINTS[1:])
def test_angles_stay_within_the_limits_of_the_joint(joint):
    angles = sample_angles(np.minimum(pose_draws(), 1 - 2**-53))[:, JOINTS.index(joint)]
    low, high = np.array(JOINT_LIMITS[joint.split("_")[-1]]).T
    assert (angles >= low).all()
    assert (angles <= high).all()


def test_poses_differ():
    angles = sample_angles(pose_draws()[:PEOPLE])
    spread = np.ptp(angles[:, JOINTS.index("left_knee"), 0])
    assert spread > 100
    assert len(np.unique(angles[:, JOINTS.index("left_shoulder")].round(3), axis=0)) > 0.99 * PEOPLE


@pytest.mark.parametrize("bone", BONES)
def test_bones_keep_their_length_in_every_pose(bone):
    angles = sample_angles(pose_draws()[:500])
    angles[:, 0] = np.random.default_rng(0).uniform(-180, 180, (500, 3))
    points = build_bodies(angles, np.full((500, BODY_NUMBERS), 0.5)).points
    a, b = (POINT[name] for name in BONES[bone])
    length = np.linalg.norm(points[:, a] - points[:, b], axis=1)
    np.testing.assert_allclose(length, length[0], rtol=1e-9)
    assert length[0] > 0.05


def test_a_person_facing_the_viewer_has_the_left_side_at_the_right():
    points = body()
    for joint in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert points[f"left_{joint}"][0] > 0 > points[f"right_{joint}"][0]
    assert points["nose"][2] > points["left_ear"][2]
    heights = [
        points[name][1] for name in ("head_top", "nose", "neck", "thorax", "pelvis", "left_knee", "left_toe")
    ]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize(
    ("angles", "joint", "axis", "sign"),
    [
        ({"left_shoulder": (90, 0, 0)}, "left_elbow", 2, 1),
        ({"right_shoulder": (0, 90, 0)}, "right_elbow", 0, -1),
        ({"left_shoulder": (0, 90, 90), "left_elbow": (90, 0, 0)}, "left_wrist", 1, 1),
        ({"right_elbow": (90, 0, 0)}, "right_wrist", 2, 1),
        ({"left_hip": (90, 0, 0)}, "left_knee", 2, 1),
        ({"right_knee": (90, 0, 0)}, "right_ankle", 2, -1),
        ({"torso": (45, 0, 0)}, "nose", 2, 1),
        ({"head": (0, 0, 60)}, "nose", 0, 1),
        ({"left_ankle": (40, 0, 0)}, "left_toe", 1, -1),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
)
def test_angles_turn_the_way_they_say(angles, joint, axis, sign):
    moved = sign * (body(**angles)[joint][axis] - body()[joint][axis])
    assert moved > 0.03


def test_a_mirrored_pose_gives_the_mirrored_body():
    angles = sample_angles(pose_draws()[:300])
    angles[:, 0] = np.random.default_rng(1).uniform(-60, 60, (300, 3))
    mirrored = angles.copy()
    for i, name in enumerate(JOINTS):
        if name.startswith("left_"):
            other = JOINTS.index(name.replace("left", "right"))
            mirrored[:, [i, other]] = angles[:, [other, i]]
        elif not name.startswith("right_"):
            mirrored[:, i, 1:] *= -1
    proportions = np.random.default_rng(2).random((300, BODY_NUMBERS))
    swapped = [
        POINT[name.replace("left", "right") if name.startswith("left") else name.replace("right", "left")]
        for name in POINTS
    ]
    expected = build_bodies(angles, proportions).points[:, swapped] * [-1, 1, 1]
    np.testing.assert_allclose(build_bodies(mirrored, proportions).points, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "ra", "rb"),
    [((0, 0), (10, 0), 3, 2), ((0, 0), (10, 5), 2, 4), ((0, 0), (1, 0), 5, 1), ((2, 2), (2, 2), 3, 3)],
    ids=["tapered", "widening", "end inside start", "no length"],
)
def test_a_capsule_is_the_hull_of_its_two_discs(a, b, ra, rb):
    a, b = np.array(a, float), np.array(b, float)
    outline = capsules(a, b, np.array(float(ra)), np.array(float(rb)))
    turn = np.linspace(0, 2 * np.pi, 720)
    direction = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    expected = np.maximum(direction @ a + ra, direction @ b + rb)  # support function of the hull
    support = (outline @ direction.T).max(axis=0)
    assert (support <= expected + 1e-9).all()
    assert (support >= expected - 0.12 * max(ra, rb)).all()  # a polygon of eight points per end


def test_landmarks_hold_both_keypoint_sets():
    assert LANDMARKS[:17] == POINTS[:17]
    assert len(set(LANDMARKS)) == 21
