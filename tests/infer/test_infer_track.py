"""Numbers that stay a person's: on cases made for each rule, and on sequences with known identity."""

import itertools

import numpy as np
import pytest
from video_truth import detect, identity, sequence, tracked

from fastpose.errors import ConfigError, DataError
from fastpose.infer.track import Tracker, _assign
from fastpose.keypoints import COCO_17

STANCE = np.random.default_rng(5).uniform(0.1, 0.9, (17, 2)) * [40, 100]


def people(*places, pose=STANCE):
    """Boxes 40 x 100 with the corner at these (x, y), each with one pose, all joints sure."""
    corner = np.array(places, np.float64).reshape(-1, 2)
    boxes = np.concatenate([corner, corner + np.array([40, 100])], axis=1)
    return boxes, pose + corner[:, None], np.full((len(corner), 17), 0.9)


def nobody():
    return people()


def test_everybody_new_gets_a_number_of_their_own():
    tracker = Tracker()
    ids = tracker.update(*people((0, 0), (200, 0), (400, 0)))
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, 2, 3]


def test_the_order_of_the_rows_does_not_matter():
    tracker = Tracker()
    tracker.update(*people((0, 0), (60, 0), (120, 0)))
    assert tracker.update(*people((122, 1), (1, 1), (61, 0))).tolist() == [3, 1, 2]


def test_a_number_is_kept_over_missing_frames_and_never_given_twice():
    tracker = Tracker(keep=3)
    tracker.update(*people((0, 0)))
    for _ in range(3):
        assert tracker.update(*nobody()).shape == (0,)
    assert tracker.update(*people((0, 0))).tolist() == [1]
    for _ in range(4):
        tracker.update(*nobody())
    assert tracker.update(*people((0, 0))).tolist() == [2]
    assert tracker.update(*people((0, 0), (300, 0))).tolist() == [2, 3]


def test_people_are_expected_where_their_velocity_takes_them():
    tracker = Tracker()
    for frame in range(6):
        tracker.update(*people((12 * frame, 0)))
    for _ in range(5):
        tracker.update(*nobody())
    # A whole box further on, where the last place says nothing.
    assert tracker.update(*people((12 * 11, 0))).tolist() == [1]
    standing = Tracker()
    standing.update(*people((60, 0)))
    standing.update(*people((60, 0)))
    assert standing.update(*people((12 * 11, 0))).tolist() == [2]


def test_poses_tell_apart_whom_boxes_do_not():
    other = STANCE[::-1].copy()
    first = [np.concatenate(pair) for pair in zip(people((0, 0)), people((6, 0), pose=other), strict=True)]
    # Both have moved to where the boxes alone would have them swapped.
    later = [np.concatenate(pair) for pair in zip(people((6, 0)), people((0, 0), pose=other), strict=True)]
    for weight, expected in ((0.5, [1, 2]), (1.0, [1, 2]), (0.0, [2, 1])):
        tracker = Tracker(oks_weight=weight)
        tracker.update(*first)
        assert tracker.update(*later).tolist() == expected, weight


def test_absent_and_weak_joints_leave_it_to_the_boxes():
    tracker = Tracker()
    boxes, points, scores = people((0, 0), (100, 0))
    tracker.update(boxes, points, scores)
    assert tracker.update(boxes[::-1], np.full_like(points, np.nan), scores).tolist() == [2, 1]
    assert tracker.update(boxes, points[::-1], np.full_like(scores, 0.1)).tolist() == [1, 2]
    assert tracker.update(boxes, points, np.full_like(scores, np.nan)).tolist() == [1, 2]


def test_hidden_joints_are_remembered_beside_those_in_sight():
    boxes, points, scores = people((0, 0))
    upper, lower, box = points.copy(), points.copy(), boxes.copy()
    upper[:, 9:], lower[:, :9] = np.nan, np.nan
    box[:, :2] += [24, 60]  # what is in sight is a corner that has little of the box before
    tracker = Tracker()
    tracker.update(boxes, points, scores)
    tracker.update(boxes - [0, 0, 24, 60], upper, scores)
    assert tracker.update(box, lower, scores).tolist() == [1]


def test_who_is_unlike_everybody_is_new():
    tracker = Tracker(least=0.2)
    tracker.update(*people((0, 0)))
    assert tracker.update(*people((90, 0))).tolist() == [2]


def test_after_a_cut_everyone_is_new():
    tracker = Tracker()
    tracker.update(*people((0, 0), (100, 0)))
    tracker.cut()
    assert tracker.update(*people((0, 0), (100, 0))).tolist() == [3, 4]


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 3), (0, 2), (2, 0)], ids=str)
def test_the_assignment_is_the_best_of_all(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        rating = rng.uniform(0, 1, shape)
        rows = _assign(rating, 0.5)
        chosen = [(row, column) for column, row in enumerate(rows) if row >= 0]
        assert all(rating[pair] >= 0.5 for pair in chosen)
        assert len({row for row, _ in chosen}) == len(chosen)
        allowed = np.where(rating >= 0.5, rating, 0.0)
        short, long = sorted(shape)
        table = allowed if shape[0] == short else allowed.T
        best = max(
            sum(table[i, j] for i, j in enumerate(order))
            for order in itertools.permutations(range(long), short)
        )
        assert sum(rating[pair] for pair in chosen) == pytest.approx(best)


def test_the_same_calls_give_the_same_numbers():
    def run():
        tracker = Tracker()
        found = detect(sequence(3, 80, 4, 25.0, True), 0)
        return [tracker.update(f.boxes, f.keypoints, f.scores).tolist() for f in found]

    first = run()
    assert first == run()
    assert all(len(set(ids)) == len(ids) for ids in first)


def test_two_people_who_cross_without_noise_are_never_mixed_up():
    score = tracked(2, 25.0, leave=False, seeds=range(3), jitter=0.0, missed=0.0, absent=0.0)
    assert score.switches == 0
    assert score.idf1 == 1.0


def test_four_people_crossing_are_mostly_told_apart():
    """Measured over these: 3 switches with poses and boxes, 7 with boxes alone (docs/video.md has more)."""
    seeds = range(3)
    both = tracked(4, 25.0, leave=False, seeds=seeds)
    boxes = tracked(4, 25.0, leave=False, seeds=seeds, make=lambda: Tracker(oks_weight=0.0))
    assert both.switches <= 5
    assert both.idf1 > 0.9
    assert both.switches < boxes.switches


def test_who_leaves_for_longer_than_the_track_waits_comes_back_with_a_new_number():
    truth = sequence(1, 110, 2, 25.0, True)
    away = [t for t in range(110) if len(truth.present(t)) < 2]
    assert len(away) > 20
    tracker, who, ids = Tracker(keep=5), [], []
    for found in detect(truth, 0, jitter=0.0, missed=0.0, absent=0.0):
        who.append(found.who.tolist())
        ids.append(tracker.update(found.boxes, found.keypoints, found.scores).tolist())
    assert identity(who, ids).switches == 1
    assert max(number for frame in ids for number in frame) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"oks_weight": 1.5}, "oks_weight"),
        ({"least": -0.1}, "least"),
        ({"keep": -1}, "keep"),
        ({"keep": 2.5}, "keep"),
        ({"sigmas": (0.1, 0.0)}, "sigmas"),
        ({"oks_weight": float("nan")}, "oks_weight"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        Tracker(**options)


@pytest.mark.parametrize(
    ("boxes", "points", "scores", "message"),
    [
        (np.zeros((2, 5)), np.zeros((2, 17, 2)), np.zeros((2, 17)), r"boxes: expected shape \(2, 4\)"),
        (np.zeros((2, 4)), np.zeros((1, 17, 2)), np.zeros((2, 17)), "keypoints"),
        (np.zeros((2, 4)), np.zeros((2, 16, 2)), np.zeros((2, 17)), "keypoints"),
        (np.zeros((2, 4)), np.zeros((2, 17, 2)), np.zeros((2, 16)), "scores"),
        (np.full((1, 4), np.nan), np.zeros((1, 17, 2)), np.zeros((1, 17)), "finite"),
    ],
    ids=["box", "people", "joints", "scores", "nan"],
)
def test_rows_that_do_not_fit(boxes, points, scores, message):
    tracker = Tracker(COCO_17.sigmas)
    with pytest.raises(DataError, match=message):
        tracker.update(boxes, points, scores)
    assert tracker.update(*people((0, 0))).tolist() == [1]


def test_the_caller_keeps_its_arrays():
    boxes, points, scores = people((0, 0))
    copies = boxes.copy(), points.copy(), scores.copy()
    Tracker().update(boxes, points, np.zeros_like(scores))
    for array, copy in zip((boxes, points), copies, strict=False):
        np.testing.assert_array_equal(array, copy)
