"""Similarity of boxes and poses against pycocotools and the OKS of the metrics."""

import numpy as np
import pytest
from pycocotools import mask

from fastpose.infer.similarity import box_area, box_iou, pose_oks
from fastpose.keypoints import COCO_17
from fastpose.metrics.oks import oks

SIGMAS = np.array(COCO_17.sigmas)


def corners(rng, count):
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 60, (count, 2))], axis=1)


def test_iou_is_that_of_pycocotools():
    rng = np.random.default_rng(0)
    a, b = corners(rng, 9), corners(rng, 7)
    boxes = [np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], axis=1) for x in (a, b)]
    np.testing.assert_allclose(box_iou(a, b), mask.iou(*boxes, [0] * 7), atol=1e-12)
    assert (box_iou(a, b) == 0).any()


def test_boxes_without_area_are_like_nothing():
    point, turned = [5.0, 5, 5, 5], [9.0, 9, 2, 2]
    np.testing.assert_array_equal(box_iou(np.array([point, turned]), np.array([point, turned])), 0)


def test_oks_with_all_joints_is_that_of_the_metrics():
    rng = np.random.default_rng(1)
    poses, others = rng.uniform(0, 30, (4, 17, 2)), rng.uniform(0, 30, (6, 17, 2))
    area, other = rng.uniform(500, 4000, 4), rng.uniform(500, 4000, 6)
    found = pose_oks(poses, others, area, other, SIGMAS)
    for row in range(4):
        np.testing.assert_allclose(found[row], oks(poses[row], others, area[row], other, SIGMAS), atol=1e-12)


def test_oks_leaves_absent_joints_out():
    rng = np.random.default_rng(2)
    pose, other = rng.uniform(0, 30, (2, 17, 2))
    some = np.array([1, 4, 9, 12])
    pose[[0, 2]], other[[2, 3]] = np.nan, np.nan
    pose[~np.isin(np.arange(17), [*some, 3])] = np.nan
    found = pose_oks(pose[None], other[None], np.array([900.0]), np.array([1600.0]), SIGMAS)
    assert found[0, 0] == pytest.approx(oks(pose[some], other[None, some], 900, [1600], SIGMAS[some])[0])


def test_two_joints_in_common_say_nothing():
    pose = np.full((1, 17, 2), np.nan)
    pose[0, :2] = 5
    assert np.isnan(pose_oks(pose, np.zeros((1, 17, 2)), np.ones(1), np.ones(1), SIGMAS)).all()
    pose[0, 2] = 5
    assert pose_oks(pose, pose, np.ones(1), np.ones(1), SIGMAS)[0, 0] == 1


def test_nobody_is_an_empty_table():
    none, one = np.zeros((0, 4)), np.array([[0.0, 0, 2, 2]])
    assert box_iou(none, one).shape == (0, 1)
    assert pose_oks(np.zeros((0, 17, 2)), np.zeros((1, 17, 2)), np.zeros(0), box_area(one), SIGMAS).shape == (
        0,
        1,
    )
