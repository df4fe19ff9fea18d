"""SimCC: targets, loss and decoder against loops in float64, and joints there and back."""

import math

import numpy as np
import pytest
import torch

from fastpose.reference.decode import to_image
from fastpose.reference.simcc import count_bins, decode_simcc, flip_bins, simcc_loss, simcc_targets

INPUT = (48, 64)
BINS = count_bins(INPUT, 2.0)


def random_joints(batch: int = 4, count: int = 3) -> torch.Tensor:
    return torch.rand(batch, count, 2) * (torch.tensor(INPUT) - 1)


def random_bins(batch: int = 4, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, count, BINS[0]), torch.randn(batch, count, BINS[1])


def axis_loop(position: float, bins: int, sigma: float | None, smoothing: float) -> list[float]:
    middle = round(position * 2)  # halves to the even bin, as np.around
    if sigma is None:
        return [1 - smoothing if i == middle else smoothing / (bins - 1) for i in range(bins)]
    height = sigma * math.sqrt(2 * math.pi)
    return [math.exp(-((i - middle) ** 2) / (2 * sigma**2)) / height for i in range(bins)]


@pytest.mark.parametrize(
    ("sigma", "smoothing"),
    [((6.0, 6.0), 0.0), ((4.9, 5.66), 0.0), (None, 0.0), (None, 0.1)],
    ids=["gaussian", "gaussian of RTMPose", "one bin", "smoothed"],
)
def test_targets_are_those_of_a_loop(sigma, smoothing):
    joints = random_joints()
    joints[0, 0] = torch.tensor([10.25, 20.75])  # halves of bins
    *axes, weight = simcc_targets(
        joints, torch.ones(4, 3), input_size=INPUT, bins=BINS, sigma=sigma, smoothing=smoothing
    )
    assert weight.all()
    for axis, bins in enumerate(BINS):
        spread = None if sigma is None else sigma[axis]
        for i, k in np.ndindex(4, 3):
            expected = axis_loop(float(joints[i, k, axis]), bins, spread, smoothing)
            np.testing.assert_allclose(axes[axis][i, k].numpy(), expected, atol=1e-7)


def test_a_target_is_a_distribution_away_from_the_ends():
    joints = torch.tensor([[[24.0, 32.0]]])
    x, y, _ = simcc_targets(joints, torch.ones(1, 1), input_size=INPUT, bins=BINS)
    assert x.sum() == pytest.approx(1, abs=1e-3)
    assert y.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("x", "sigma", "kept"),
    [
        (-9.0, (6.0, 6.0), True),  # bin -18 and three sigma reach bin 0, and one more is allowed
        (-9.5, (6.0, 6.0), True),
        (-10.0, (6.0, 6.0), False),
        (56.5, (6.0, 6.0), True),  # bin 113, three sigma below it is 95, the last
        (57.0, (6.0, 6.0), False),
        (47.5, None, True),
        (48.0, None, False),
        (-0.25, None, True),  # bin -0.5 is bin 0
        (-0.5, None, False),
        (math.nan, (6.0, 6.0), False),
        (math.inf, (6.0, 6.0), False),
        (-math.inf, None, False),
    ],
)
def test_joints_that_are_out_of_reach_are_dropped(x, sigma, kept):
    joints = torch.tensor([[[x, 30.0]]])
    *axes, weight = simcc_targets(joints, torch.ones(1, 1), input_size=INPUT, bins=BINS, sigma=sigma)
    assert weight.item() == kept
    assert all(axis.isfinite().all() and bool(axis.any()) == kept for axis in axes)


def test_the_loss_is_that_of_a_loop():
    joints, pred = random_joints(), tuple(axis.double() for axis in random_bins())
    weight = torch.tensor([[1.0, 0.0, 1.5]] * 4)
    joints[0, 0, 0] = 1e6  # dropped
    total = 0.0
    for i, k in np.ndindex(4, 3):
        if (i, k) == (0, 0):
            continue
        for axis, bins in enumerate(BINS):
            logits = pred[axis][i, k].numpy()
            shares = logits - np.log(np.exp(logits).sum())
            target = np.array(axis_loop(float(joints[i, k, axis]), bins, 6.0, 0.0))
            total += float(weight[i, k]) * np.mean(target * (np.log(target) - shares))
    assert simcc_loss(pred, joints, weight, input_size=INPUT).item() == pytest.approx(total / 12, rel=1e-5)


def test_the_gradient_is_share_minus_target():
    joints, weight = random_joints(), torch.tensor([[1.0, 0.0, 2.0]] * 4)
    pred = tuple(axis.double().requires_grad_() for axis in random_bins())
    simcc_loss(pred, joints, weight, input_size=INPUT).backward()
    *targets, _ = simcc_targets(joints, (weight > 0).float(), input_size=INPUT, bins=BINS)
    for axis, target in zip(pred, targets, strict=True):
        target = target.double()
        slope = target.sum(-1, keepdim=True) * axis.detach().softmax(-1) - target
        expected = weight[..., None] * slope / (12 * axis.shape[-1])
        torch.testing.assert_close(axis.grad, expected, atol=1e-9, rtol=1e-6)
    assert not pred[0].grad[:, 1].any()


def test_half_precision_is_read_as_float32():
    joints, pred = random_joints(), random_bins()
    halves = tuple(axis.bfloat16() for axis in pred)
    loss = simcc_loss(halves, joints, torch.ones(4, 3), input_size=INPUT)
    assert loss.dtype == torch.float32
    same = simcc_loss(tuple(axis.float() for axis in halves), joints, torch.ones(4, 3), input_size=INPUT)
    assert loss == same


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.0])
def test_joints_come_back_to_half_a_bin(ratio):
    joints, bins = random_joints(20), count_bins(INPUT, ratio)
    *pred, _ = simcc_targets(joints, torch.ones(20, 3), input_size=INPUT, bins=bins)
    found = decode_simcc(tuple(pred), input_size=INPUT)
    error = (found.keypoints - joints).abs()
    assert error.max() <= 0.5 / ratio + 1e-5
    assert error.max() > 0.3 / ratio


def test_points_are_mapped_into_the_image():
    pred, center, scale = random_bins(), torch.rand(4, 2) * 100, torch.rand(4, 2) + 0.5
    inside = decode_simcc(pred, input_size=INPUT)
    found = decode_simcc(pred, center, scale, input_size=INPUT)
    assert torch.equal(found.keypoints, to_image(inside.keypoints, center, scale, *INPUT))
    assert torch.equal(found.score, inside.score)


def test_the_score_is_the_lower_maximum():
    x, y = torch.zeros(1, 2, BINS[0]), torch.zeros(1, 2, BINS[1])
    x[0, 0, 10], y[0, 0, 20] = 0.75, 0.5
    x[0, 1, 10], y[0, 1, 20] = 0.25, 0.5
    found = decode_simcc((x, y), input_size=INPUT)
    assert found.score.tolist() == [[0.5, 0.25]]
    assert found.keypoints.tolist() == [[[5.0, 10.0], [5.0, 10.0]]]


@pytest.mark.parametrize(
    ("fill", "valid"), [(-1.0, True), (math.nan, False), (math.inf, False)], ids=["negative", "nan", "inf"]
)
def test_an_axis_without_a_maximum_gives_the_first_bin(fill, valid):
    x, y = torch.rand(1, 1, BINS[0]) + 1, torch.full((1, 1, BINS[1]), fill)
    found = decode_simcc((x, y), input_size=INPUT)
    assert found.keypoints.tolist() == [[[0.0, 0.0]]]
    assert (found.score.item(), found.valid.item()) == (min(fill, 0.0) if valid else 0.0, valid)


def test_nan_never_wins_and_the_lowest_bin_wins_a_tie():
    x, y = torch.zeros(1, 1, BINS[0]), torch.zeros(1, 1, BINS[1])
    x[0, 0, 5], x[0, 0, [8, 12]], y[0, 0, 4] = math.nan, 1.0, 1.0
    assert decode_simcc((x, y), input_size=INPUT).keypoints.tolist() == [[[4.0, 2.0]]]


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.0])
def test_with_the_shift_a_mirrored_crop_gives_the_same_bins(ratio):
    bins, joints = count_bins(INPUT, ratio), torch.tensor([[[10.0, 7.0], [20.0, 30.0], [31.0, 41.0]]])
    swap = [1, 0, 2]
    mirrored = joints[:, swap].clone()
    mirrored[..., 0] = INPUT[0] - 1 - mirrored[..., 0]
    sizes = {"input_size": INPUT, "bins": bins, "sigma": (1.5, 1.5)}
    *straight, _ = simcc_targets(joints, torch.ones(1, 3), **sizes)
    *turned, _ = simcc_targets(mirrored, torch.ones(1, 3), **sizes)
    back = flip_bins(tuple(turned), swap, int(ratio - 1))
    torch.testing.assert_close(back[0], straight[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(back[1], straight[1], atol=1e-6, rtol=0)
    aligned = decode_simcc(
        tuple(straight), input_size=INPUT, flipped=tuple(turned), flip_index=swap, shift=True
    )
    torch.testing.assert_close(aligned.keypoints, joints)


def test_without_it_the_bins_are_reversed_and_averaged_as_mmpose_does():
    pred, other, swap = random_bins(), random_bins(), [2, 1, 0]
    found = decode_simcc(pred, input_size=INPUT, flipped=other, flip_index=torch.tensor(swap))
    x = (pred[0].numpy() + other[0].numpy()[:, swap, ::-1]) / 2
    y = (pred[1].numpy() + other[1].numpy()[:, swap]) / 2
    np.testing.assert_array_equal(found.keypoints[..., 0].numpy() * 2, x.argmax(-1))
    np.testing.assert_array_equal(found.keypoints[..., 1].numpy() * 2, y.argmax(-1))
    np.testing.assert_allclose(found.score.numpy(), np.minimum(x.max(-1), y.max(-1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("pred", "options", "message"),
    [
        ((torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)), {}, "pred: expected x"),
        ((torch.zeros(1, 2, 4), torch.zeros(1, 2, 0)), {}, "pred: expected bins"),
        (random_bins(), {"center": torch.zeros(4, 2)}, "center and scale: give both"),
        (random_bins(), {"flipped": random_bins()}, "flip_index: needed"),
        (random_bins(), {"flipped": random_bins(3), "flip_index": [0, 1, 2]}, "flipped: expected shapes"),
        (random_bins(), {"flipped": random_bins(), "flip_index": [0, 1]}, "flip_index: expected 3 joints"),
    ],
    ids=["joints differ", "no bins", "scale missing", "order missing", "flipped differs", "order short"],
)
def test_wrong_arguments_of_the_decoder(pred, options, message):
    with pytest.raises(ValueError, match=message):
        decode_simcc(pred, input_size=INPUT, **options)


@pytest.mark.parametrize(
    ("joints", "options", "message"),
    [
        (torch.zeros(4, 3), {}, "joints: expected"),
        (random_joints(4, 2), {}, "visible: expected"),
        (random_joints(), {"bins": (0, 9)}, "bins: expected two positive"),
        (random_joints(), {"sigma": (0, 1)}, "sigma: expected"),
        (random_joints(), {"smoothing": 0.1}, "smoothing: only without sigma"),
        (random_joints(), {"sigma": None, "smoothing": 1.5}, "smoothing: expected a number from 0 to 1"),
    ],
    ids=["joints", "visible", "bins", "sigma", "smoothing", "much smoothing"],
)
def test_wrong_arguments_of_the_targets(joints, options, message):
    with pytest.raises(ValueError, match=message):
        simcc_targets(joints, torch.ones(4, 3), **{"input_size": INPUT, "bins": BINS, **options})
