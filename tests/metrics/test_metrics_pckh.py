"""PCKh against the official MPII evaluation."""

import json

import numpy as np
import pytest
from conftest import shared_path
from tolerances import TOLERANCES

from fastpose.errors import DataError
from fastpose.metrics.pckh import pckh, pckh_from_arrays


@pytest.fixture(scope="module")
def mat_file():
    return shared_path("golden", "mpii_pckh", "gt_valid.mat")


@pytest.fixture(scope="module")
def keypoints():
    with np.load(shared_path("golden", "mpii_pckh", "predictions.npz")) as file:
        return file["predictions"]


def test_golden(mat_file, keypoints):
    expected = json.loads(shared_path("golden", "mpii_pckh", "expected.json").read_text())
    expected["Mean@0.11"] = expected.pop("Mean@0.1")  # the official code's name for the threshold 0.11
    got = pckh(mat_file, keypoints)
    assert list(got)[-3:] == ["Mean", "Mean@0.1", "Mean@0.11"]
    atol, rtol = TOLERANCES["metric", "golden"]
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=atol, rtol=rtol, err_msg=name)


def test_thresholds():
    truth = np.zeros((100, 16, 2))
    keypoints = truth.copy()
    keypoints[..., 0] = np.arange(100)[:, None] * 0.01 + 0.005  # errors of 0.005, 0.015, ... heads
    got = pckh_from_arrays(keypoints, truth, np.ones((100, 16)), np.ones(100))
    expected = {"Mean@0.1": 10.0, "Mean@0.11": 11.0, "Mean": 50.0, "Head": 50.0}
    assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_error_equal_to_the_threshold_is_correct():
    truth = np.zeros((1, 16, 2))
    keypoints = truth.copy()
    keypoints[..., 1] = 30.0
    assert pckh_from_arrays(keypoints, truth, np.ones((1, 16)), np.array([60.0]))["Mean"] == 100.0


def test_mean_is_weighted_by_labelled_joints_without_pelvis_and_thorax():
    truth, visible = np.zeros((4, 16, 2)), np.zeros((4, 16))
    visible[:, 9], visible[0, 0], visible[:, 6:8] = 1, 1, 1
    keypoints = truth.copy()
    keypoints[:, (0, 6, 7)] = 100.0  # wrong: one ankle, and what does not count
    got = pckh_from_arrays(keypoints, truth, visible, np.ones(4))
    assert got["Mean"] == pytest.approx(80.0)
    assert got["Head"] == 100.0
    assert np.isnan(got["Ankle"])  # the left ankle is never labelled
    assert np.isnan(pckh_from_arrays(keypoints, truth, np.zeros((4, 16)), np.ones(4))["Mean"])


def test_keypoints_that_are_not_finite_are_wrong(mat_file, keypoints):
    lost = keypoints.copy()
    lost[...] = np.nan
    assert pckh(mat_file, lost)["Mean"] == 0.0


def test_rejects_another_number_of_persons(mat_file, keypoints):
    with pytest.raises(DataError, match=r"has 40 persons, so \(40, 16, 2\) is expected; got \(39, 16, 3\)"):
        pckh(mat_file, keypoints[1:])
    with pytest.raises(DataError, match=r"visible: expected \(40, 16\), got \(40, 15\)"):
        pckh_from_arrays(np.zeros((40, 16, 2)), np.zeros((40, 16, 2)), np.ones((40, 15)), np.ones(40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "not a readable .mat"),
        (b"not a mat file" * 20, "not a readable .mat"),
        ("truncated", r"gt_valid\.mat"),
        ("other", "field jnt_missing has shape"),
    ],
    ids=["missing", "empty", "text", "truncated", "other-fields"],
)
def test_rejects_a_wrong_file(tmp_path, mat_file, content, message):
    path = tmp_path / "gt_valid.mat"
    if content == "truncated":
        path.write_bytes(mat_file.read_bytes()[:400])
    elif content == "other":
        from scipy.io import savemat

        savemat(path, {"pos_gt_src": np.zeros((16, 2, 3))})
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        pckh(path, np.zeros((40, 16, 2)))
