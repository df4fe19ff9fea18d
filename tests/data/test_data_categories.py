"""Keypoints that a file brings along: sides, limbs, sigmas and overrides."""

import logging
from functools import partial

import pytest
from conftest import shared_path
from tiny_coco import write_coco

from fastpose.data.categories import DEFAULT_SIGMA, keypoints_of_file, mirrored_name
from fastpose.data.coco import read_coco
from fastpose.errors import DataError
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet

NAMES = ["nose", "left_hip", "right_hip", "l_paw", "r_paw", "tail"]
CATEGORY = {"id": 3, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 6], [2, 4], [3, 5]]}


@pytest.fixture
def coco(tmp_path):
    return partial(write_coco, tmp_path)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_eye", "right_eye"),
        ("right_eye", "left_eye"),
        ("Left Eye", "right eye"),
        ("eye_left", "eye_right"),
        ("l_hip", "r_hip"),
        ("hip-R", "hip-l"),
        ("LHip", "rhip"),
        ("RightKnee", "leftknee"),
        ("knee.l", "knee.r"),
        ("nose", "nose"),
        ("ear", "ear"),
        ("spiral", "spiral"),
    ],
)
def test_mirrored_name(name, other):
    assert mirrored_name(name) == other


@pytest.mark.parametrize("keypoints", [COCO_17, MPII_16], ids=lambda k: k.name)
def test_flip_pairs_of_known_sets_are_found_by_name(keypoints):
    renamed = {"id": 1, "name": "x", "keypoints": [*keypoints.names, "extra"]}
    guessed, _ = keypoints_of_file([renamed], "f.json")
    assert guessed.flip_pairs == keypoints.flip_pairs
    assert set(guessed.upper_body) == {*keypoints.upper_body, keypoints.num_joints}
    exact, _ = keypoints_of_file([{**renamed, "keypoints": list(keypoints.names)}], "f.json")
    assert exact is keypoints


def test_names_that_differ_in_case_only_are_paired_once():
    category = {"id": 1, "keypoints": ["Left_eye", "left_eye", "right_eye"]}
    assert keypoints_of_file([category], "f.json")[0].flip_pairs == ((1, 2),)


def test_set_from_a_category():
    keypoints, ids = keypoints_of_file([{"id": 1, "name": "background"}, CATEGORY], "f.json")
    assert ids == {3}
    assert keypoints == KeypointSet(
        name="cat6",
        names=tuple(NAMES),
        flip_pairs=((1, 2), (3, 4)),
        skeleton=((0, 5), (1, 3), (2, 4)),
        sigmas=(0.026, 0.107, 0.107, DEFAULT_SIGMA, DEFAULT_SIGMA, DEFAULT_SIGMA),
        upper_body=(0, 3, 4, 5),
        joint_weights=(1.0,) * 6,
    )


def test_categories_with_the_same_names_are_read_together():
    dog, bird = {**CATEGORY, "id": 4}, {**CATEGORY, "id": 5, "keypoints": ["beak"]}
    assert keypoints_of_file([CATEGORY, dog, bird], "f.json")[1] == {3, 4}


def test_given_set_is_matched_by_the_number_of_keypoints():
    given, _ = keypoints_of_file([CATEGORY], "f.json")
    renamed = {**CATEGORY, "keypoints": [name.upper() for name in NAMES]}
    assert keypoints_of_file([renamed], "f.json", keypoint_set=given) == (given, {3})
    assert keypoints_of_file([{"id": 7}], "f.json", keypoint_set=given) == (given, {1})
    with pytest.raises(DataError, match=r"17 keypoints asked for: 'cat' \(id 3\) lists 6"):
        keypoints_of_file([CATEGORY], "f.json", keypoint_set=COCO_17)


def test_sigmas_and_flip_pairs_override():
    keypoints, _ = keypoints_of_file(
        [CATEGORY], "f.json", sigmas=[0.1] * 6, flip_pairs=[("nose", "tail"), (1, 2)]
    )
    assert keypoints.sigmas == (0.1,) * 6
    assert keypoints.flip_pairs == ((0, 5), (1, 2))
    assert keypoints_of_file([CATEGORY], "f.json", flip_pairs=[])[0].flip_pairs == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": [0.1]}, "6 positive numbers"),
        ({"sigmas": [0.0] * 6}, "6 positive numbers"),
        ({"flip_pairs": [(0, 6)]}, "flip_pairs"),
        ({"flip_pairs": [(0, 1), (1, 2)]}, "flip_pairs"),
        ({"flip_pairs": [("nose", "nase")]}, "flip_pairs"),
        ({"flip_pairs": [(0, 1, 2)]}, "flip_pairs"),
    ],
)
def test_wrong_overrides_are_named(options, message):
    with pytest.raises(DataError, match=message):
        keypoints_of_file([CATEGORY], "f.json", **options)


@pytest.mark.parametrize(
    "categories",
    [
        [],
        [{"id": 1}],
        [{"id": 1, "keypoints": 5}],
        [{"id": 1, "keypoints": ["a", "a"]}],
        [{"id": 1, "keypoints": [1]}],
    ],
    ids=["none", "no-keypoints", "number", "twice", "no-names"],
)
def test_unusable_categories_are_named(categories):
    with pytest.raises(DataError, match=r"f\.json: .*'keypoints'"):
        keypoints_of_file(categories, "f.json")


def test_foreign_skeleton_is_replaced_by_known_limbs(caplog):
    folder = shared_path("data", "crowdpose_sample")
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        table = read_coco(
            folder / "annotations" / "test_crowdpose.json", folder / "images", aspect_ratio=0.75
        )
    keypoints = table.keypoints
    assert "3 of 12 limbs" in caplog.text
    assert (len(table), keypoints.num_joints, dict(table.skipped)) == (4, 14, {"no keypoints": 1})
    limbs = {frozenset((keypoints.names[a], keypoints.names[b])) for a, b in keypoints.skeleton}
    assert {"left_knee", "left_ankle"} in limbs
    assert {"left_shoulder", "right_shoulder"} in limbs
    assert len(limbs) == 12
    assert keypoints.flip_pairs == tuple((k, k + 1) for k in range(0, 12, 2))


def test_overrides_pass_through_the_reader(coco):
    table = read_coco(*coco(), aspect_ratio=0.75, sigmas=[0.2] * 17, flip_pairs=[("left_eye", "right_eye")])
    assert table.keypoints.sigmas == (0.2,) * 17
    assert table.keypoints.flip_pairs == ((1, 2),)
