"""UDP: targets against a drawn loop, refinement against OpenCV's blur, and joints there and back."""

import math

import numpy as np
import pytest
import torch
from mmpose_decode import udp_point

from fastpose.data.affine import get_udp_transform, transform_points
from fastpose.reference.decode import decode_heatmaps, flip_average
from fastpose.reference.heatmap import gaussian_heatmaps
from fastpose.reference.udp import strided_joints, udp_heatmaps, udp_positions, udp_to_image

SIZES = [
    pytest.param((192, 256), (48, 64), 2.0, 11, id="256x192"),
    pytest.param((288, 384), (72, 96), 3.0, 17, id="384x288"),
]
INPUT, MAP = (192, 256), (48, 64)


def random_joints(count: int, size: tuple[int, int], margin: float = 0.0) -> torch.Tensor:
    span = torch.tensor([size[0] - 1 - 2 * margin, size[1] - 1 - 2 * margin], dtype=torch.float64)
    return margin + torch.rand(count, 3, 2, dtype=torch.float64) * span


def draw_loop(joint: np.ndarray, heatmap_size: tuple[int, int], input_size: tuple[int, int], sigma: float):
    """One target cell by cell, and whether any of its patch is on the map."""
    width, height = heatmap_size
    at = [joint[i] * (heatmap_size[i] - 1) / (input_size[i] - 1) for i in (0, 1)]
    middle, radius = [int(value + 0.5) for value in at], int(3 * sigma)
    out = np.zeros((height, width))
    for y in range(max(0, middle[1] - radius), min(height, middle[1] + radius + 1)):
        for x in range(max(0, middle[0] - radius), min(width, middle[0] + radius + 1)):
            out[y, x] = math.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))
    sizes = zip(middle, heatmap_size, strict=True)
    kept = all(value - radius < cells and value + radius + 1 >= 0 for value, cells in sizes)
    return out, kept


def whole_maps(joints: torch.Tensor, input_size, heatmap_size, sigma: float) -> torch.Tensor:
    """The targets of training: nothing cut off."""
    moved = strided_joints(joints, input_size, heatmap_size)
    visible = torch.ones(joints.shape[:2])
    sizes = {"heatmap_size": heatmap_size, "input_size": input_size}
    return gaussian_heatmaps(moved, visible, **sizes, sigma=sigma, unbiased=True)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_targets_are_those_of_a_loop(dtype):
    # some far outside, so that patches touch the map in a corner or not at all
    joints = (torch.rand(12, 3, 2, dtype=torch.float64) * 2 - 0.5) * torch.tensor(INPUT)
    joints = joints.to(dtype)
    maps, weight = udp_heatmaps(joints, torch.ones(12, 3), heatmap_size=MAP, input_size=INPUT)
    for i in range(12):
        for k in range(3):
            expected, kept = draw_loop(joints[i, k].double().numpy(), MAP, INPUT, 2.0)
            assert weight[i, k] == kept
            np.testing.assert_allclose(maps[i, k].numpy(), expected if kept else 0 * expected, atol=1e-6)
    assert 0 < weight.sum() < 36


@pytest.mark.parametrize(
    ("cell", "kept", "drawn"),
    [(-7.4, 1, True), (-7.6, 1, False), (-8.6, 0, False), (53.4, 1, True), (53.6, 0, False)],
)
def test_a_patch_one_cell_short_of_the_map_keeps_its_weight(cell, kept, drawn):
    joints = torch.tensor([[[cell * 191 / 47, 100.0]]])
    maps, weight = udp_heatmaps(joints, torch.ones(1, 1), heatmap_size=MAP, input_size=INPUT)
    assert (weight.item(), bool(maps.any())) == (kept, drawn)


def test_invisible_joints_are_not_drawn_and_impossible_ones_are_dropped():
    joints = torch.tensor([[[50.0, 60.0], [math.nan, 60.0], [math.inf, 60.0], [50.0, 60.0]]])
    visible = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    maps, weight = udp_heatmaps(joints, visible, heatmap_size=MAP, input_size=INPUT)
    assert weight.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert maps[0, 0].max() > 0.9
    assert not maps[0, 1:].any()


@pytest.mark.parametrize(("input_size", "heatmap_size", "sigma", "kernel"), SIZES)
def test_targets_of_training_differ_from_mmposes_by_their_tails_alone(
    input_size, heatmap_size, sigma, kernel
):
    joints = random_joints(20, input_size)
    whole = whole_maps(joints, input_size, heatmap_size, sigma)
    cut, weight = udp_heatmaps(
        joints, torch.ones(20, 3), heatmap_size=heatmap_size, input_size=input_size, sigma=sigma
    )
    assert weight.all()
    assert (whole - cut).abs().max() <= math.exp(-((3 * sigma + 0.5) ** 2) / (2 * sigma**2))
    torch.testing.assert_close(whole[cut > 0], cut[cut > 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("input_size", "heatmap_size", "sigma", "kernel"), SIZES)
@pytest.mark.parametrize("draw", ["whole", "cut"])
def test_keypoints_come_back_within_a_hundredth_of_a_pixel(input_size, heatmap_size, sigma, kernel, draw):
    center, scale = np.array([310.5, 200.25]), np.array([input_size[0] / 200, input_size[1] / 200])
    joints = random_joints(60, input_size, margin=4 * (3 * sigma + 2))
    to_image = get_udp_transform(center, scale, 0.0, input_size, inverse=True)
    keypoints = torch.from_numpy(transform_points(joints.numpy(), to_image))
    if draw == "whole":
        maps = whole_maps(joints, input_size, heatmap_size, sigma)
    else:
        sizes = {"heatmap_size": heatmap_size, "input_size": input_size}
        maps, _ = udp_heatmaps(joints, torch.ones(60, 3), **sizes, sigma=sigma)
    boxes = [torch.from_numpy(value).expand(60, 2) for value in (center, scale)]
    found = decode_heatmaps(maps, *boxes, refine="dark_udp", blur_kernel=kernel, unit="size-1")
    assert (found.keypoints - keypoints).abs().max() < 0.01


def test_rounded_targets_with_a_quarter_shift_are_off_by_a_pixel():
    joints = random_joints(60, INPUT, margin=32)
    maps, _ = gaussian_heatmaps(joints, torch.ones(60, 3), heatmap_size=MAP, input_size=INPUT)
    found = decode_heatmaps(maps).keypoints * 4
    assert 1.0 < (found - joints).abs().max() <= 2.0


@pytest.mark.parametrize(
    ("kernel", "sigma", "noise"),
    [(3, 2.0, 0.02), (11, 2.0, 0.02), (17, 2.0, 0.02), (63, 2.0, 0.02), (1, 0.45, 0.0), (3, 0.3, 0.0)],
    ids=["3", "11", "17", "63", "no blur, clamped", "3, clamped"],
)
def test_refinement_is_that_of_opencvs_blur(kernel, sigma, noise):
    # real maps are not Gaussians: noise, and peaks in the corners and next to the border
    corners = [[0, 0], [191, 0], [0, 255], [191, 255], [96, 0], [0, 128], [4, 4], [187, 251], [90, 90]]
    joints = torch.cat([random_joints(8, INPUT), torch.tensor(corners).double().view(3, 3, 2)])
    maps = whole_maps(joints, INPUT, MAP, sigma) + noise * torch.rand(11, 3, 64, 48)
    found = decode_heatmaps(maps, refine="dark_udp", blur_kernel=kernel).keypoints
    expected = np.array([[udp_point(heatmap, kernel) for heatmap in image] for image in maps.numpy()])
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


def test_mirrored_maps_give_mirrored_points():
    maps = whole_maps(random_joints(10, INPUT), INPUT, MAP, 2.0)
    plain = decode_heatmaps(maps, refine="dark_udp").keypoints
    mirrored = decode_heatmaps(maps.flip(-1), refine="dark_udp").keypoints
    torch.testing.assert_close(47 - mirrored[..., 0], plain[..., 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored[..., 1], plain[..., 1], atol=1e-4, rtol=0)


def test_a_mirrored_target_lies_on_the_target_without_a_shift():
    joints = random_joints(10, INPUT)
    mirrored = torch.stack((191 - joints[..., 0], joints[..., 1]), dim=-1)
    maps, raw = (whole_maps(points, INPUT, MAP, 2.0) for points in (joints, mirrored))
    torch.testing.assert_close(flip_average(maps, raw, [0, 1, 2], shift=False), maps, atol=1e-6, rtol=0)
    assert (flip_average(maps, raw, [0, 1, 2], shift=True) - maps).abs().max() > 0.05


def test_the_way_back_is_the_inverse_of_the_way_in():
    center, scale = np.array([[123.4, 77.0], [10.5, 300.25]]), np.array([[0.9, 1.2], [3.3, 4.4]])
    cells = torch.rand(2, 5, 2, dtype=torch.float64) * torch.tensor([47.0, 63.0])
    got = udp_to_image(cells, torch.from_numpy(center), torch.from_numpy(scale), *MAP)
    for i in range(2):
        matrix = get_udp_transform(center[i], scale[i], 0.0, INPUT)
        in_crop = torch.from_numpy(transform_points(got[i].double().numpy(), matrix))
        torch.testing.assert_close(udp_positions(in_crop, INPUT, MAP), cells[i], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("spoil", "valid"),
    [(lambda maps: maps.fill_(math.nan), False), (lambda maps: maps.fill_(-1.0), True)],
    ids=["nothing finite", "nothing positive"],
)
def test_maps_without_a_peak_give_the_first_cell(spoil, valid):
    maps = torch.rand(1, 1, 16, 12)
    spoil(maps)
    found = decode_heatmaps(maps, refine="dark_udp")
    assert found.keypoints.tolist() == [[[0.0, 0.0]]]
    assert found.valid.tolist() == [[valid]]


def test_nan_in_reach_of_the_blur_leaves_the_peak():
    maps = whole_maps(torch.tensor([[[100.0, 100.0]]]), INPUT, MAP, 2.0)
    x, y = decode_heatmaps(maps, refine="none").keypoints[0, 0].long().tolist()
    maps[0, 0, y + 3, x + 3] = math.nan
    assert decode_heatmaps(maps, refine="dark_udp").keypoints[0, 0].tolist() == [x, y]


@pytest.mark.parametrize("sizes", [((1, 256), (48, 64)), ((192, 256), (0, 64))])
def test_sizes_without_a_unit_are_refused(sizes):
    with pytest.raises(ValueError, match="expected sizes of at least"):
        udp_positions(torch.zeros(1, 1, 2), *sizes)


def test_positions_span_the_map():
    corners = torch.tensor([[[0.0, 0.0], [191.0, 255.0]]])
    assert udp_positions(corners, INPUT, MAP).tolist() == [[[0.0, 0.0], [47.0, 63.0]]]
