"""The reference decoder against the official functions, and at the edges those leave open."""

import numpy as np
import pytest
import torch
from tolerances import TOLERANCES

from fastpose.keypoints import COCO_17
from fastpose.reference.decode import argmax_heatmaps, decode_heatmaps, flip_average, flip_heatmaps

FLIP = COCO_17.flip_index


@pytest.fixture(scope="module")
def golden(golden_functions):
    return {name: torch.from_numpy(value) for name, value in golden_functions.items()}


def peak_map(x: int, y: int, *, width: int = 12, height: int = 16) -> torch.Tensor:
    """(1, 1, H, W): zero but for a peak of 1 at (x, y)."""
    heatmaps = torch.zeros(1, 1, height, width)
    heatmaps[0, 0, y, x] = 1.0
    return heatmaps


def test_argmax_golden(golden):
    xy, score, valid = argmax_heatmaps(golden["decode_heatmaps"])
    assert torch.equal(xy, golden["decode_argmax_xy"])
    assert torch.equal(score, golden["decode_maxval"][..., 0])
    assert valid.all()


@pytest.mark.parametrize(
    ("refine", "name"), [("quarter", "decode_final_xy"), ("none", "decode_final_xy_no_refine")]
)
def test_decode_golden(golden, refine, name):
    decoded = decode_heatmaps(
        golden["decode_heatmaps"], golden["decode_center"], golden["decode_scale"], refine=refine
    )
    atol, rtol = TOLERANCES["decode", "golden"]
    torch.testing.assert_close(decoded.keypoints, golden[name], atol=atol, rtol=rtol)
    assert (decoded.keypoints != golden[name]).sum() <= 1


def test_flip_golden(golden):
    assert torch.equal(flip_heatmaps(golden["flip_input"], FLIP), golden["flip_output"])


@pytest.mark.parametrize("shift", [True, False])
def test_flip_average_recovers_the_peak(shift):
    # a network that answers a mirrored crop with the exact mirror image, one pixel off as strides make it
    heatmaps = peak_map(5, 7)
    raw = torch.roll(heatmaps, -1, dims=-1).flip(-1) if shift else heatmaps.flip(-1)
    assert torch.equal(flip_average(heatmaps, raw, [0], shift=shift), heatmaps)


def test_shift_keeps_column_0():
    flipped = torch.arange(4.0).view(1, 1, 1, 4).flip(-1)
    average = flip_average(torch.zeros(1, 1, 1, 4), flipped, [0])
    assert average.flatten().tolist() == [0.0, 0.0, 0.5, 1.0]


def test_flip_decode_equals_decode_of_average(golden):
    heatmaps, flipped = golden["decode_heatmaps"][:4], golden["decode_heatmaps"][2:]
    direct = decode_heatmaps(heatmaps, flipped=flipped, flip_index=FLIP)
    expected = decode_heatmaps(flip_average(heatmaps, flipped, FLIP))
    assert torch.equal(direct.keypoints, expected.keypoints)
    assert torch.equal(direct.score, expected.score)


def test_flip_index_tensor_and_sequence_agree(golden):
    maps = golden["flip_input"]
    assert torch.equal(flip_heatmaps(maps, torch.tensor(FLIP)), flip_heatmaps(maps, list(FLIP)))


def test_ties_take_the_lowest_index():
    heatmaps = torch.zeros(1, 2, 16, 12)
    heatmaps[0, 0, 3, 4] = heatmaps[0, 0, 3, 9] = heatmaps[0, 0, 8, 1] = 2.0
    heatmaps[0, 1] = 1.0
    xy, _, _ = argmax_heatmaps(heatmaps)
    assert xy.tolist() == [[[4.0, 3.0], [0.0, 0.0]]]


@pytest.mark.parametrize(
    ("fill", "score", "valid"),
    [
        (torch.nan, 0.0, False),
        (torch.inf, 0.0, False),
        (-torch.inf, 0.0, False),
        (0.0, 0.0, True),
        (-3.0, -3.0, True),
    ],
    ids=["nan", "inf", "-inf", "zero", "negative"],
)
def test_maps_without_a_positive_peak(fill, score, valid):
    decoded = decode_heatmaps(torch.full((1, 1, 16, 12), fill))
    assert decoded.keypoints.tolist() == [[[0.0, 0.0]]]
    assert decoded.score.item() == score
    assert decoded.valid.item() is valid


def test_peak_of_zero_gives_the_origin():
    decoded = decode_heatmaps(peak_map(5, 7) - 1.0)
    assert decoded.keypoints.tolist() == [[[0.0, 0.0]]]
    assert decoded.score.item() == 0.0
    assert decoded.valid.item()


def test_only_finite_values_compete():
    heatmaps = peak_map(5, 7)
    heatmaps[0, 0, 2, 2], heatmaps[0, 0, 3, 3], heatmaps[0, 0, 4, 4] = torch.nan, torch.inf, -torch.inf
    xy, score, valid = argmax_heatmaps(heatmaps)
    assert xy.tolist() == [[[5.0, 7.0]]]
    assert score.item() == 1.0
    assert valid.item()


def test_nan_neighbour_gives_no_shift():
    heatmaps = peak_map(5, 7)
    heatmaps[0, 0, 7, 6] = torch.nan
    heatmaps[0, 0, 6, 5] = 0.5
    assert decode_heatmaps(heatmaps).keypoints.tolist() == [[[5.0, 6.75]]]


@pytest.mark.parametrize("y", [0, 1, 2, 14, 15])
@pytest.mark.parametrize("x", [0, 1, 2, 10, 11])
def test_quarter_shift_needs_both_axes_inside(x, y):
    heatmaps = peak_map(x, y)
    heatmaps[0, 0, max(y - 1, 0), x] += 0.25  # uphill to the top and to the left
    heatmaps[0, 0, y, max(x - 1, 0)] += 0.25
    step = 0.25 if 1 < x < 11 and 1 < y < 15 else 0.0
    assert decode_heatmaps(heatmaps).keypoints.tolist() == [[[x - step, y - step]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_decoded_in_float32(golden, dtype):
    maps = golden["decode_heatmaps"].to(dtype)
    got = decode_heatmaps(maps, flipped=maps, flip_index=FLIP)
    expected = decode_heatmaps(maps.float(), flipped=maps.float(), flip_index=FLIP)
    assert got.keypoints.dtype == got.score.dtype == torch.float32
    assert torch.equal(got.keypoints, expected.keypoints)
    assert torch.equal(got.score, expected.score)


def test_strided_maps(golden):
    maps = golden["decode_heatmaps"]
    last = maps.contiguous(memory_format=torch.channels_last)
    assert torch.equal(decode_heatmaps(last).keypoints, decode_heatmaps(maps).keypoints)


@pytest.mark.parametrize("shape", [(0, 17, 16, 12), (2, 0, 16, 12), (2, 3, 1, 1), (1, 133, 9, 7)], ids=str)
def test_shapes(shape):
    batch, joints = shape[:2]
    decoded = decode_heatmaps(torch.rand(shape), torch.zeros(batch, 2), torch.ones(batch, 2))
    assert decoded.keypoints.shape == (batch, joints, 2)
    assert decoded.score.shape == decoded.valid.shape == (batch, joints)


def test_inverse_affine_maps_the_box():
    # a 400 x 533 px box at 192x256: heatmap centre -> box centre, one heatmap pixel -> 400/48 px
    heatmaps = torch.zeros(1, 2, 64, 48)
    heatmaps[0, 0, 32, 24] = heatmaps[0, 1, 32, 36] = 1.0
    decoded = decode_heatmaps(heatmaps, torch.tensor([[320.0, 240.0]]), torch.tensor([[2.0, 2.6666667]]))
    np.testing.assert_allclose(decoded.keypoints[0], [[320, 240], [420, 240]], rtol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_whole(golden, backend):
    args = golden["decode_heatmaps"], golden["decode_center"], golden["decode_scale"]
    compiled = torch.compile(decode_heatmaps, fullgraph=True, backend=backend)
    got = compiled(*args, flipped=args[0], flip_index=FLIP)
    expected = decode_heatmaps(*args, flipped=args[0], flip_index=FLIP)
    assert torch.equal(got.keypoints, expected.keypoints)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmaps": torch.zeros(17, 16, 12)}, r"heatmaps: expected \(B, K, H, W\).*\(17, 16, 12\)"),
        ({"heatmaps": torch.zeros(1, 17, 0, 12)}, "heatmaps: expected"),
        ({"center": torch.zeros(1, 2)}, "center and scale"),
        ({"center": torch.zeros(2, 2), "scale": torch.ones(1, 2)}, r"center: expected shape \(1, 2\)"),
        ({"flipped": torch.zeros(1, 17, 16, 12)}, "flip_index: needed with flipped"),
        ({"flipped": torch.zeros(1, 17, 16, 11), "flip_index": FLIP}, "flipped: expected the shape"),
        ({"flipped": torch.zeros(1, 17, 16, 12), "flip_index": [0] * 17}, "expected a permutation"),
        ({"flipped": torch.zeros(1, 17, 16, 12), "flip_index": torch.arange(3)}, "flip_index: expected"),
    ],
    ids=["3-D", "empty", "no-scale", "center", "no-index", "flipped", "repeats", "short"],
)
def test_rejects(change, message):
    arguments = {"heatmaps": torch.zeros(1, 17, 16, 12), **change}
    with pytest.raises(ValueError, match=message):
        decode_heatmaps(**arguments)
