"""What is drawn, what is left alone, and what is refused."""

import cv2
import numpy as np
import pytest

from fastpose.errors import DataError, ImageError
from fastpose.infer.draw import BOX_COLOR, COLORS, draw_poses
from fastpose.keypoints import COCO_17, MPII_16, KeypointSet

GREY = 128


def canvas(height=200, width=160):
    return np.full((height, width, 3), GREY, np.uint8)


def one_person(points, keypoint_set=COCO_17, score=0.9):
    """Keypoints (1, K, 2) and score (1, K) with only the named joints present."""
    keypoints = np.zeros((1, keypoint_set.num_joints, 2))
    scores = np.zeros((1, keypoint_set.num_joints))
    for name, xy in points.items():
        keypoints[0, keypoint_set.names.index(name)] = xy
        scores[0, keypoint_set.names.index(name)] = score
    return keypoints, scores


def standing():
    """A whole COCO person between (40, 20) and (120, 190)."""
    rng = np.random.default_rng(0)
    return rng.uniform([40, 20], [120, 190], (1, 17, 2)), np.ones((1, 17))


def changed(drawn, image):
    return (drawn != image).any(axis=2)


def test_limb_joins_its_ends_in_the_colour_of_its_side():
    keypoints, score = one_person({"left_hip": (40, 50), "left_knee": (120, 50)})
    drawn = draw_poses(canvas(), keypoints, score, COCO_17)
    assert drawn[50, 80].tolist() == list(COLORS["left"])
    assert not changed(drawn, canvas())[70:].any()


@pytest.mark.parametrize(
    ("keypoint_set", "ends", "side"),
    [
        pytest.param(COCO_17, ("left_elbow", "left_wrist"), "left", id="coco-left"),
        pytest.param(COCO_17, ("right_elbow", "right_wrist"), "right", id="coco-right"),
        pytest.param(COCO_17, ("left_shoulder", "right_shoulder"), "centre", id="coco-across"),
        pytest.param(MPII_16, ("right_ankle", "right_knee"), "right", id="mpii-right-is-first-of-its-pair"),
        pytest.param(MPII_16, ("pelvis", "left_hip"), "left", id="mpii-middle-to-left"),
        pytest.param(MPII_16, ("neck", "head_top"), "centre", id="mpii-middle"),
    ],
)
def test_colour_of_a_limb(keypoint_set, ends, side):
    keypoints, score = one_person({ends[0]: (30, 100), ends[1]: (130, 100)}, keypoint_set)
    drawn = draw_poses(canvas(), keypoints, score, keypoint_set)
    assert drawn[100, 80].tolist() == list(COLORS[side])


def test_sides_follow_the_pairs_where_names_do_not_tell():
    pair = KeypointSet("pair", ("paw 1", "paw 2"), ((0, 1),), (), (0.1, 0.1), (), (1, 1))
    keypoints = np.array([[[40.0, 40.0], [120.0, 40.0]]])
    drawn = draw_poses(canvas(), keypoints, np.ones((1, 2)), pair)
    assert drawn[40, 40].tolist() == list(COLORS["left"])
    assert drawn[40, 120].tolist() == list(COLORS["right"])


@pytest.mark.parametrize(
    ("xy", "score"),
    [
        pytest.param((80, 100), 0.19, id="below-threshold"),
        pytest.param((80, 100), np.nan, id="nan-score"),
        pytest.param((np.nan, 100), 0.9, id="nan-x"),
        pytest.param((80, np.inf), 0.9, id="inf-y"),
        pytest.param((1e30, 100), 0.9, id="1e30"),
        pytest.param((0, 0), 0.9, id="absent-at-origin"),
    ],
)
def test_joint_that_cannot_be_trusted_leaves_no_mark(xy, score):
    keypoints, scores = one_person({"left_knee": xy}, score=score)
    keypoints[0, COCO_17.names.index("left_hip")] = (80, 40)
    assert np.array_equal(draw_poses(canvas(), keypoints, scores, COCO_17), canvas())


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_absent_joint_stays_absent_at_any_threshold(threshold):
    """The decoder gives score 0 (or less) and the crop's corner to a map without a peak."""
    keypoints, scores = np.full((1, 17, 2), 30.0), np.zeros((1, 17))
    assert np.array_equal(draw_poses(canvas(), keypoints, scores, COCO_17, threshold=threshold), canvas())


def test_input_is_left_alone_and_may_be_read_only():
    image = canvas()
    image.flags.writeable = False
    keypoints, score = standing()
    before = keypoints.copy(), score.copy()
    drawn = draw_poses(image, keypoints, score, COCO_17, boxes=[[40, 20, 80, 170]], person_score=[0.5])
    assert changed(drawn, image).any()
    assert np.array_equal(image, canvas())
    assert np.array_equal(keypoints, before[0])
    assert np.array_equal(score, before[1])


@pytest.mark.parametrize(
    "empty",
    [(np.zeros((0, 17, 2)), np.zeros((0, 17))), ([], []), (np.zeros(0), np.zeros((0, 17)))],
    ids=["shaped", "lists", "flat"],
)
def test_nobody_in_the_picture(empty):
    drawn = draw_poses(canvas(), *empty, COCO_17, boxes=np.zeros((0, 4)), person_score=[])
    assert np.array_equal(drawn, canvas())
    assert drawn.flags.writeable


@pytest.mark.parametrize(
    "shape", [(60, 50), (60, 50, 1), (60, 50, 3), (60, 50, 4), (1, 1, 3), (3, 2)], ids=str
)
def test_kinds_of_picture(shape):
    image = np.full(shape, GREY, np.uint8)
    keypoints, score = standing()
    drawn = draw_poses(image, keypoints / 4, score, COCO_17, boxes=[[1, 1, 40, 50]], person_score=[1.0])
    assert drawn.shape == (*shape[:2], 3)
    assert drawn.dtype == np.uint8
    assert changed(drawn, np.full_like(drawn, GREY)).any()


def test_views_of_other_layouts_draw_the_same():
    image = np.random.default_rng(0).integers(0, 255, (200, 160, 3), np.uint8)
    keypoints, score = standing()
    expected = draw_poses(image, keypoints, score, COCO_17)
    reversed_view = np.ascontiguousarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    assert np.array_equal(draw_poses(reversed_view, keypoints, score, COCO_17), expected)


def test_joints_outside_the_picture_are_cut_off_by_it():
    keypoints, score = one_person({"left_hip": (80, 100), "left_knee": (100_000, 100)})
    drawn = draw_poses(canvas(), keypoints, score, COCO_17)
    assert drawn[100, 159].tolist() == list(COLORS["left"])
    assert not changed(drawn, canvas())[:, :60].any()


def test_lines_grow_with_the_person():
    def thickness(size):
        keypoints, score = one_person({"left_hip": (100, 50), "left_knee": (100, 50 + size)})
        image = canvas(1000, 200)
        return changed(draw_poses(image, keypoints, score, COCO_17), image)[50 + size // 2].sum()

    assert thickness(40) < thickness(200) < thickness(800) < 25


def test_small_person_is_drawn_over_a_large_one():
    large = one_person({"left_hip": (80, 10), "left_knee": (80, 190)})
    small = one_person({"right_hip": (60, 100), "right_knee": (100, 100)})
    for order in ((large, small), (small, large)):
        keypoints, score = (np.concatenate(arrays) for arrays in zip(*order, strict=True))
        crossing = draw_poses(canvas(), keypoints, score, COCO_17)[100, 80]
        assert np.abs(crossing.astype(int) - COLORS["right"]).max() < 30


def test_edges_are_smooth():
    keypoints, score = one_person({"left_hip": (20, 20), "left_knee": (140, 150)})
    middle = draw_poses(canvas(), keypoints, score, COCO_17)[60:110]  # away from the two joints
    assert len(np.unique(middle.reshape(-1, 3), axis=0)) > 20


def test_box_and_score():
    keypoints, score = np.zeros((1, 17, 2)), np.zeros((1, 17))
    boxed = draw_poses(canvas(), keypoints, score, COCO_17, boxes=[[30, 60, 100, 80]])
    assert boxed[100, 30].tolist() == boxed[140, 80].tolist() == boxed[100, 130].tolist() == list(BOX_COLOR)
    assert not changed(boxed, canvas())[62:138, 32:128].any()
    labelled = draw_poses(canvas(), keypoints, score, COCO_17, boxes=[[30, 60, 100, 80]], person_score=[0.87])
    assert changed(labelled, boxed)[40:60, 30:60].any()


@pytest.mark.parametrize(
    "box",
    [(np.nan, 0, 10, 10), (5, 5, 0, 10), (5, 5, 10, -3), (0, 0, 1e9, 10), (np.inf, 0, 1, 1)],
    ids=["nan", "no-width", "negative", "1e9", "inf"],
)
def test_box_that_is_none_is_not_drawn(box):
    absent = np.zeros((1, 17, 2)), np.zeros((1, 17))
    drawn = draw_poses(canvas(), *absent, COCO_17, boxes=[box], person_score=[0.5])
    assert np.array_equal(drawn, canvas())


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(None, id="none"),
        pytest.param(np.zeros((4, 4, 3)), id="float"),
        pytest.param(np.zeros((4, 4, 3), np.uint16), id="uint16"),
        pytest.param(np.zeros((4, 4, 2), np.uint8), id="2-channels"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="empty"),
        pytest.param(np.zeros(4, np.uint8), id="1d"),
        pytest.param(np.zeros((2, 4, 4, 3), np.uint8), id="batch"),
    ],
)
def test_other_images_are_refused(image):
    with pytest.raises(ImageError, match="image: expected"):
        draw_poses(image, np.zeros((1, 17, 2)), np.zeros((1, 17)), COCO_17)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("keypoints", {"keypoints": np.zeros((1, 16, 2))}),
        ("keypoints", {"keypoints": np.zeros((17, 2))}),
        ("score", {"score": np.zeros((2, 17))}),
        ("boxes", {"boxes": np.zeros((2, 4))}),
        ("person_score", {"person_score": 0.5}),
    ],
    ids=["other-set", "no-persons-axis", "other-count", "boxes", "person_score"],
)
def test_wrong_shapes_are_named(name, changes):
    arguments = {"keypoints": np.zeros((1, 17, 2)), "score": np.zeros((1, 17))} | changes
    with pytest.raises(DataError, match=f"^{name}: expected shape"):
        draw_poses(canvas(), keypoint_set=COCO_17, **arguments)


def test_opencv_never_draws_past_its_own_limits():
    """Random wild coordinates: every call returns, and cv2 raises nothing."""
    rng = np.random.default_rng(3)
    for power in (3, 6, 9, 30):
        keypoints = rng.standard_normal((3, 17, 2)) * 10.0**power
        boxes = rng.standard_normal((3, 4)) * 10.0**power
        drawn = draw_poses(
            canvas(), keypoints, np.ones((3, 17)), COCO_17, boxes=boxes, person_score=[1, 0, 1]
        )
        assert drawn.shape == (200, 160, 3)
        assert cv2.imencode(".png", drawn)[0]
