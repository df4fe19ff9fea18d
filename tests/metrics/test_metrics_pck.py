"""PCK, AUC and EPE on numbers worked by hand; the training accuracy against the official function."""

import numpy as np
import pytest
import torch
from tolerances import TOLERANCES

from fastpose.errors import DataError
from fastpose.metrics.pck import auc, epe, heatmap_accuracy, joint_accuracy, pck
from fastpose.reference.heatmap import gaussian_heatmaps

# two persons, three joints: errors 5, 10, 0 and 20, 10, 0 px; the last joint is never labelled
TRUTH = np.zeros((2, 3, 2))
KEYPOINTS = np.array([[[3.0, 4.0], [6.0, 8.0], [0.0, 0.0]], [[20.0, 0.0], [0.0, 10.0], [0.0, 0.0]]])
VISIBLE = np.array([[1, 1, 0], [1, 0, 0]])
SIZE = np.array([50.0, 50.0])


def test_heatmap_accuracy_golden(golden_functions):
    pred, target = (torch.from_numpy(golden_functions[f"pck_{name}"]) for name in ("pred", "target"))
    got = heatmap_accuracy(pred, target)
    atol, rtol = TOLERANCES["metric", "golden"]
    expected = torch.from_numpy(golden_functions["pck_per_joint"])
    torch.testing.assert_close(got.per_joint, expected[1:], atol=atol, rtol=rtol)
    torch.testing.assert_close(got.mean, expected[0], atol=atol, rtol=rtol)
    assert got.counted.item() == golden_functions["pck_count"]


def test_heatmap_accuracy_without_targets():
    got = heatmap_accuracy(torch.rand(2, 3, 16, 12), torch.zeros(2, 3, 16, 12))
    assert got.per_joint.tolist() == [-1.0] * 3
    assert got.mean.item() == got.counted.item() == 0


@pytest.mark.parametrize(("y", "x", "counts"), [(2, 2, True), (1, 5, False), (5, 1, False), (0, 0, False)])
def test_targets_on_the_first_two_rows_or_columns_do_not_count(y, x, counts):
    target = torch.zeros(1, 1, 16, 12)
    target[0, 0, y, x] = 1.0
    assert heatmap_accuracy(target, target).counted.item() == counts


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("size", [(12, 16), (48, 64)], ids=str)
def test_joint_accuracy_is_that_of_the_drawn_target(size, unbiased):
    input_size = (4 * size[0], 4 * size[1])
    joints = (torch.rand(20, 7, 2) * 1.6 - 0.3) * torch.tensor(input_size)
    joints[0, :3, 1] = torch.tensor([torch.nan, torch.inf, -1e30])
    joints[1, :, 0] = torch.tensor([-30.0, -6.0, -2.0, 2.0, 5.9, 6.0, 10.0])
    visible = torch.rand(20, 7)
    options = {"input_size": input_size, "sigma": 2.0, "unbiased": unbiased}
    target, _ = gaussian_heatmaps(joints, visible, heatmap_size=size, **options)
    pred = target + torch.rand_like(target) * 1.5  # some peaks stay where they are
    expected, got = heatmap_accuracy(pred, target), joint_accuracy(pred, joints, visible, **options)
    assert 0 < expected.mean < 1
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_heatmap_accuracy_compiles_whole():
    maps = torch.rand(2, 3, 16, 12)
    compiled = torch.compile(heatmap_accuracy, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(maps, maps).mean, heatmap_accuracy(maps, maps).mean)


def test_pck_is_the_mean_over_labelled_joints():
    # thresholds of 7.5 px: joint 0 is right in one of two, joint 1 wrong in its only one
    assert pck(KEYPOINTS, TRUTH, VISIBLE, SIZE, threshold=0.15) == pytest.approx((0.5 + 0.0) / 2)
    assert pck(KEYPOINTS, TRUTH, VISIBLE, SIZE, threshold=0.25) == pytest.approx((0.5 + 1.0) / 2)


def test_pck_threshold_is_strict():
    assert pck(KEYPOINTS[:1, :1], TRUTH[:1, :1], VISIBLE[:1, :1], SIZE[:1], threshold=0.1) == 0.0


def test_pck_normaliser_per_axis():
    axes = np.array([[3.0, 1e6], [20.0, 1.0]])
    assert pck(KEYPOINTS[:, :1], TRUTH[:, :1], VISIBLE[:, :1], axes, threshold=1.01) == 1.0
    assert pck(KEYPOINTS[:, :1], TRUTH[:, :1], VISIBLE[:, :1], axes, threshold=0.99) == 0.0


def test_pck_counts_what_is_not_finite_as_wrong():
    lost = np.full_like(KEYPOINTS, np.nan)
    assert pck(lost, TRUTH, VISIBLE, SIZE, threshold=1e9) == 0.0


def test_auc_of_a_step():
    # one joint 10 px off with a normaliser of 20: wrong up to 0.5 (eleven of twenty), right beyond
    one = np.array([[[0.0, 10.0]]])
    assert auc(one, np.zeros((1, 1, 2)), np.ones((1, 1)), np.array([20.0])) == pytest.approx(9 / 20)


def test_epe():
    assert epe(KEYPOINTS, TRUTH, VISIBLE) == pytest.approx((5 + 10 + 20) / 3)


def test_epe_rejects_what_is_not_finite_only_where_visible():
    lost = KEYPOINTS.copy()
    lost[:, 2] = np.nan
    assert epe(lost, TRUTH, VISIBLE) == pytest.approx(35 / 3)
    lost[0, 0, 1] = np.inf
    with pytest.raises(DataError, match="1 of 3 visible ones are not finite"):
        epe(lost, TRUTH, VISIBLE)


def test_nothing_visible_is_nan():
    hidden = np.zeros((2, 3))
    assert np.isnan(pck(KEYPOINTS, TRUTH, hidden, SIZE))
    assert np.isnan(auc(KEYPOINTS, TRUTH, hidden, SIZE))
    assert np.isnan(epe(KEYPOINTS, TRUTH, hidden))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pck(KEYPOINTS[:1], TRUTH, VISIBLE, SIZE), "keypoints, truth, visible: expected"),
        (lambda: epe(KEYPOINTS, TRUTH, VISIBLE[:, :2]), "keypoints, truth, visible: expected"),
        (lambda: auc(KEYPOINTS, TRUTH, VISIBLE, SIZE[:1]), r"normaliser: expected positive \(2,\)"),
        (lambda: pck(KEYPOINTS, TRUTH, VISIBLE, SIZE * 0), "normaliser: expected positive"),
        (lambda: heatmap_accuracy(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 4, 3)), "target: expected"),
        (
            lambda: joint_accuracy(
                torch.zeros(1, 2, 3, 4), torch.zeros(1, 3, 2), torch.ones(1, 3), input_size=(16, 12)
            ),
            r"joints: expected \(B, K, 2\) of pred",
        ),
    ],
    ids=["keypoints", "visible", "normaliser", "zero", "heatmaps", "joints"],
)
def test_rejects(call, message):
    with pytest.raises(DataError, match=message):
        call()
