"""OKS and its suppressions against the official nms.py."""

import numpy as np
import pytest
from tolerances import TOLERANCES

from fastpose.errors import DataError
from fastpose.keypoints import COCO_17
from fastpose.metrics.oks import oks, oks_nms, soft_oks_nms

SIGMAS = COCO_17.sigmas


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(("method", "name"), [(oks_nms, "oks_nms"), (soft_oks_nms, "oks_soft_nms")])
def test_kept_rows_golden(golden_functions, method, name, threshold):
    keypoints, score, area = (golden_functions[f"oks_{part}"] for part in ("keypoints", "score", "area"))
    kept = method(keypoints, score, area, SIGMAS, threshold)
    np.testing.assert_array_equal(kept, golden_functions[f"{name}_keep_{threshold}"])


def test_oks_golden(golden_functions):
    keypoints, area = golden_functions["oks_keypoints"], golden_functions["oks_area"]
    got = oks(keypoints[0], keypoints[1:], area[0], area[1:], SIGMAS)
    atol, rtol = TOLERANCES["oks", "golden"]
    np.testing.assert_allclose(got, golden_functions["oks_iou_of_0_to_rest"], atol=atol, rtol=rtol)


def test_formula_for_any_number_of_joints():
    one = np.zeros((2, 2))
    other = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    got = oks(one, other, 80.0, np.array([120.0]), (0.5, 0.25))
    assert got == pytest.approx([(np.exp(-25 / 1.0 / 100 / 2) + 1) / 2])


def test_zero_area_and_far_away_is_zero():
    got = oks(np.zeros((1, 2)), np.array([[[1.0, 0.0]], [[1e30, 0.0]]]), 0.0, np.zeros(2), (0.1,))
    assert got.tolist() == [0.0, 0.0]


def test_equal_scores_keep_the_order_given():
    keypoints = np.array([[[0.0, 0.0]], [[1000.0, 0.0]], [[0.0, 0.0]]])
    assert oks_nms(keypoints, np.ones(3), np.full(3, 10.0), (0.1,)).tolist() == [0, 1]


def test_soft_nms_keeps_20_at_most_and_reorders():
    keypoints = np.zeros((25, 1, 2))
    keypoints[24] = 1000.0  # alone, so it overtakes the faded copies
    score = np.linspace(1.0, 0.5, 25)
    kept = soft_oks_nms(keypoints, score, np.full(25, 10.0), (0.1,))
    assert len(kept) == 20
    assert kept[:2].tolist() == [0, 24]


@pytest.mark.parametrize("method", [oks_nms, soft_oks_nms])
def test_no_poses(method):
    assert method(np.zeros((0, 17, 3)), np.zeros(0), np.zeros(0), SIGMAS).tolist() == []


def test_rejects_wrong_sigmas():
    with pytest.raises(DataError, match="sigmas: got 2"):
        oks(np.zeros((3, 2)), np.zeros((1, 3, 2)), 1.0, np.ones(1), (0.1, 0.1))
