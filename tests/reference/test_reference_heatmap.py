"""Gaussian targets against the official generator, and for coordinates no integer can hold."""

import pytest
import torch
from loss_truth import target_truth
from tolerances import TOLERANCES

from fastpose.reference.decode import argmax_heatmaps
from fastpose.reference.heatmap import gaussian_heatmaps, gaussian_peaks

GOLDEN = [("256x192", 2), ("384x288", 3), ("256x256", 2)]
SMALL = {"heatmap_size": (12, 16), "input_size": (48, 64)}


def golden_case(golden_functions, name):
    height, width = map(int, name.split("x"))
    sizes = {"heatmap_size": (width // 4, height // 4), "input_size": (width, height)}
    arrays = [torch.from_numpy(golden_functions[f"target_{name}_{part}"])
              for part in ("joints", "visible", "heatmaps", "weight")]  # fmt: skip
    return sizes, arrays


def one(x: float, y: float, *, visible: float = 1.0, dtype=torch.float64, **options):
    joints = torch.tensor([[[x, y]]], dtype=dtype)
    heatmaps, weight = gaussian_heatmaps(joints, torch.tensor([[visible]]), **{**SMALL, **options})
    return heatmaps[0, 0], weight.item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "sigma"), GOLDEN)
def test_golden(golden_functions, name, sigma, dtype):
    sizes, (joints, visible, expected, expected_weight) = golden_case(golden_functions, name)
    heatmaps, weight = gaussian_heatmaps(joints.to(dtype), visible, sigma=sigma, **sizes)
    assert heatmaps.dtype == weight.dtype == torch.float32
    assert torch.equal(heatmaps > 0, expected > 0)
    atol, rtol = TOLERANCES["heatmap", "golden"]
    torch.testing.assert_close(heatmaps, expected, atol=atol, rtol=rtol)
    assert torch.equal(weight, expected_weight[..., 0])


@pytest.mark.parametrize(
    ("x", "cell"), [(-2.1, 0), (-5.9, 0), (-6.0, -1), (1.99, 0), (2.0, 1), (5.99, 1), (6.0, 2)]
)
def test_centre_is_truncated_towards_zero(x, cell):
    heatmap, weight = one(x, 32.0)
    column = torch.exp(-((torch.arange(12.0) - cell) ** 2) / 8) * ((torch.arange(12) - cell).abs() <= 6)
    torch.testing.assert_close(heatmap[8], column, atol=1e-7, rtol=0)
    assert weight == 1.0


@pytest.mark.parametrize(
    ("cell", "weight", "drawn"),
    [(-8, 0.0, False), (-7, 1.0, False), (-6, 1.0, True), (17, 1.0, True), (18, 0.0, False)],
)
def test_patch_at_the_border(cell, weight, drawn):
    # column -7: the patch ends one cell short of the map, and the official code keeps the weight
    heatmap, got = one(4.0 * cell + (-3 if cell < 0 else 1), 32.0)
    assert got == weight
    assert heatmap.any().item() is drawn


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 2.0**31, -(2.0**63), 1e300]
)
def test_coordinates_no_integer_can_hold(value, axis, unbiased):
    heatmap, weight = one(*((value, 32.0) if axis == 0 else (32.0, value)), unbiased=unbiased)
    assert weight == 0.0
    assert torch.equal(heatmap, torch.zeros(16, 12))


def test_float32_joints_are_rounded_in_float64():
    # 2 - 2^-23 lies below the half cell; adding 0.5 in float32 would round it up
    below = torch.nextafter(torch.tensor(2.0), torch.tensor(0.0)).item()
    assert one(below, 32.0, dtype=torch.float32)[0].argmax().item() == 8 * 12


def test_denormal_coordinate_is_zero():
    assert one(5e-324, 32.0)[0].argmax().item() == 8 * 12


@pytest.mark.parametrize(("visible", "drawn"), [(0.0, False), (0.5, False), (0.6, True), (1.0, True)])
def test_visible_threshold(visible, drawn):
    heatmap, weight = one(20.0, 32.0, visible=visible)
    assert heatmap.any().item() is drawn
    assert weight == pytest.approx(visible)


@pytest.mark.parametrize(("sigma", "radius"), [(0.3, 0), (0.5, 1), (1.5, 4), (1.9, 5), (2.5, 7)])
def test_fractional_sigma(sigma, radius):
    sizes = {"heatmap_size": (31, 31), "input_size": (31, 31)}
    heatmap, _ = one(15.0, 15.0, sigma=sigma, **sizes)
    support = heatmap.nonzero()
    assert support.min().item() == 15 - radius
    assert support.max().item() == 15 + radius
    assert len(support) == (2 * radius + 1) ** 2
    assert heatmap[15, 15] == 1.0


def test_stride_need_not_be_whole():
    heatmap, _ = one(50.0, 30.0, heatmap_size=(12, 16), input_size=(100, 40))
    assert divmod(heatmap.argmax().item(), 12) == (12, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sizes", "sigma"), [(((12, 16), (48, 64)), 2.0), (((13, 7), (100, 40)), 1.3)])
def test_unbiased_is_that_of_dark(sizes, sigma, dtype):
    joints = (torch.rand(9, 17, 2, dtype=dtype) * 2.4 - 0.7) * torch.tensor(sizes[1])
    options = {"heatmap_size": sizes[0], "input_size": sizes[1], "sigma": sigma, "unbiased": True}
    heatmaps, weight = gaussian_heatmaps(joints, torch.ones(9, 17), **options)
    assert 0.1 < weight.mean() < 0.9
    for joint, heatmap, kept in zip(
        joints.flatten(0, 1), heatmaps.flatten(0, 1), weight.flatten(), strict=True
    ):
        expected, expected_weight = target_truth(joint.double().numpy(), *sizes, sigma, unbiased=True)
        assert kept == expected_weight
        assert abs(heatmap.double().numpy() - expected).max() <= TOLERANCES["heatmap", "golden"][0]


@pytest.mark.parametrize(
    ("cell", "weight"), [(-8.0, 0.0), (-7.9999, 1.0), (17.9999, 1.0), (18.0, 0.0), (5.25, 1.0)]
)
def test_unbiased_joint_at_the_border(cell, weight):
    # 12 columns, sigma 2: kept between -3 sigma - 2 and 12 + 3 sigma
    heatmap, got = one(4 * cell, 32.0, unbiased=True)
    assert got == weight
    assert (heatmap > 0).all().item() is bool(weight)  # the whole map, not a patch


@pytest.mark.parametrize(("visible", "drawn"), [(0.5, False), (0.6, True)])
def test_unbiased_visible_threshold(visible, drawn):
    heatmap, weight = one(20.0, 32.0, visible=visible, unbiased=True)
    assert heatmap.any().item() is drawn
    assert weight == pytest.approx(visible)


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_peaks_are_those_of_the_heatmaps(dtype, sigma, unbiased):
    random = (torch.rand(40, 17, 2, dtype=dtype) * 2 - 0.5) * torch.tensor([48.0, 64.0])
    values = torch.tensor(
        [torch.nan, torch.inf, 1e30, -31.0, -30.0, -6.0, -2.1, 1.99, 2.0, 6.0, 10.0, 46.0, 71.9]
    )
    edges = torch.cartesian_prod(values, values).to(dtype).reshape(13, 13, 2)
    options = {**SMALL, "sigma": sigma, "unbiased": unbiased}
    for joints in (random, edges):
        visible = torch.rand(joints.shape[:2])
        heatmaps, _ = gaussian_heatmaps(joints, visible, **options)
        assert torch.equal(gaussian_peaks(joints, visible, **options), argmax_heatmaps(heatmaps)[0])


def test_bool_visible_and_empty_batch():
    heatmaps, weight = gaussian_heatmaps(torch.zeros(0, 17, 2), torch.ones(0, 17, dtype=torch.bool), **SMALL)
    assert heatmaps.shape == (0, 17, 16, 12)
    assert weight.shape == (0, 17)


@pytest.mark.parametrize("unbiased", [False, True], ids=["rounded", "unbiased"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_whole(golden_functions, backend, unbiased):
    sizes, (joints, visible, _, _) = golden_case(golden_functions, "256x192")
    compiled = torch.compile(gaussian_heatmaps, fullgraph=True, backend=backend)
    got = compiled(joints, visible, unbiased=unbiased, **sizes)
    for tensor, expected in zip(
        got, gaussian_heatmaps(joints, visible, unbiased=unbiased, **sizes), strict=True
    ):
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": torch.zeros(2, 17, 3)}, r"joints: expected \(B, K, 2\).*\(2, 17, 3\)"),
        ({"joints": torch.zeros(2, 17, 2, dtype=torch.int64)}, "joints: .*int64"),
        ({"visible": torch.ones(2, 16)}, r"visible: expected \(2, 17\), got \(2, 16\)"),
        ({"heatmap_size": (0, 16)}, "heatmap_size: expected positive"),
        ({"input_size": (48,)}, "input_size: expected positive"),
        ({"sigma": 0.0}, "sigma: expected a positive number"),
        ({"sigma": float("nan")}, "sigma: expected a positive number"),
    ],
    ids=["joints", "dtype", "visible", "heatmap_size", "input_size", "sigma-0", "sigma-nan"],
)
def test_rejects(change, message):
    arguments = {"joints": torch.zeros(2, 17, 2), "visible": torch.ones(2, 17), **SMALL, **change}
    with pytest.raises(ValueError, match=message):
        gaussian_heatmaps(**arguments)
