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
    assert list(got)[-5:] == ["Mean", "Mean@0.1", "Mean@0.11", "Mean unweighted", "Mean pooled"]
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


def test_means_of_hourglass_networks_count_all_labels_or_all_joints_alike():
    """13 labels: 4 heads right, 1 ankle wrong, of 8 pelves and thoraxes 3 right."""
    truth, visible = np.zeros((4, 16, 2)), np.zeros((4, 16))
    visible[:, 9], visible[0, 0], visible[:, 6:8] = 1, 1, 1
    keypoints = truth.copy()
    keypoints[:, (0, 6, 7)] = 100.0
    keypoints[:3, 6] = 0.25
    got = pckh_from_arrays(keypoints, truth, visible, np.ones(4))
    assert got["Mean unweighted"] == pytest.approx(100 * (1 + 0) / 2)
    assert got["Mean pooled"] == pytest.approx(100 * (4 + 3) / 13)
    empty = pckh_from_arrays(keypoints, truth, np.zeros((4, 16)), np.ones(4))
    assert np.isnan([empty["Mean unweighted"], empty["Mean pooled"]]).all()


def test_means_of_hourglass_networks_against_loops(mat_file, keypoints):
    from scipy.io import loadmat

    fields = loadmat(mat_file)
    right, labelled = np.zeros(16), np.zeros(16)
    for person in range(len(keypoints)):
        (x0, y0), (x1, y1) = fields["headboxes_src"][:, :, person].astype(float)
        head = 0.6 * np.hypot(x1 - x0, y1 - y0)
        for joint in range(16):
            if not fields["jnt_missing"][joint, person]:
                x, y = keypoints[person, joint, :2] + 1 - fields["pos_gt_src"][joint, :, person]
                labelled[joint] += 1
                right[joint] += np.hypot(x, y) < 0.5 * head
    got = pckh(mat_file, keypoints)
    counted = [joint for joint in range(16) if joint not in (6, 7)]
    assert got["Mean pooled"] == pytest.approx(100 * right.sum() / labelled.sum())
    assert got["Mean unweighted"] == pytest.approx(100 * np.mean(right[counted] / labelled[counted]))
    assert len({round(got[name], 3) for name in ("Mean", "Mean pooled", "Mean unweighted")}) == 3


def test_means_of_hourglass_networks_want_less_than_the_threshold():
    truth = np.zeros((1, 16, 2))
    keypoints = truth.copy()
    keypoints[..., 1] = 30.0
    got = pckh_from_arrays(keypoints, truth, np.ones((1, 16)), np.array([60.0]))
    assert (got["Mean"], got["Mean unweighted"], got["Mean pooled"]) == (100.0, 0.0, 0.0)
    keypoints[..., 1] = np.nextafter(30.0, 0)
    got = pckh_from_arrays(keypoints, truth, np.ones((1, 16)), np.array([60.0]))
    assert (got["Mean unweighted"], got["Mean pooled"]) == (100.0, 100.0)


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
