"""The crop matrix is the official one, bit for bit."""

import numpy as np
import pytest

from fastpose.data.affine import box_to_center_scale, get_affine_transform, transform_points, warp_crop
from fastpose.errors import DataError


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
def test_matrix_equals_the_official_one(golden_functions, inverse):
    golden = {
        name: golden_functions[f"affine_{name}"] for name in ("center", "scale", "rotation_deg", "output_wh")
    }
    expected = golden_functions["affine_inverse" if inverse else "affine_matrix"]
    for row, (center, scale, rotation, size) in enumerate(zip(*golden.values(), strict=True)):
        matrix = get_affine_transform(center, scale, rotation, (int(size[0]), int(size[1])), inverse=inverse)
        assert matrix.dtype == np.float64
        assert np.array_equal(matrix, expected[row]), row


def test_center_lands_in_the_middle_and_width_fills_the_crop():
    center, scale = np.array([100.0, 80.0], np.float32), np.array([0.6, 0.8], np.float32)
    matrix = get_affine_transform(center, scale, 0, (192, 256))
    corners = transform_points(np.array([[100, 80], [40, 80], [160, 80]]), matrix)
    assert np.allclose(corners, [[96, 128], [0, 128], [192, 128]], atol=1e-3)


def test_inverse_undoes_the_matrix():
    center, scale = np.array([33.3, 71.9], np.float32), np.array([1.7, 2.2], np.float32)
    points = np.random.default_rng(0).uniform(-50, 300, (5, 17, 2))
    there = get_affine_transform(center, scale, 37, (192, 256))
    back = get_affine_transform(center, scale, 37, (192, 256), inverse=True)
    assert np.allclose(transform_points(transform_points(points, there), back), points, atol=0.01)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_no_matrix_for_a_box_without_extent(scale):
    with pytest.raises(DataError, match="no crop for center"):
        get_affine_transform(np.zeros(2, np.float32), np.full(2, scale, np.float32), 0, (192, 256))


def test_box_grows_to_the_aspect_ratio_and_is_padded():
    boxes = np.array([[10, 20, 30, 40], [10, 20, 60, 40], [10, 20, 30, 80]], float)
    center, scale = box_to_center_scale(boxes, 0.75)
    assert center.dtype == scale.dtype == np.float32
    assert np.array_equal(center, np.float32([[25, 40], [40, 40], [25, 60]]))
    assert np.allclose(scale * 200, np.array([[30, 40], [60, 80], [60, 80]]) * 1.25)
    assert np.array_equal(box_to_center_scale(boxes[1], 0.75)[1], scale[1])


def test_missing_center_is_not_padded():
    _, scale = box_to_center_scale(np.array([-16.0, 0, 30, 40]), 0.75)
    assert np.allclose(scale * 200, [30, 40])


def test_points_take_one_matrix_or_one_each():
    rng = np.random.default_rng(0)
    points, matrices = rng.normal(size=(4, 17, 2)), rng.normal(size=(4, 2, 3))
    each = transform_points(points, matrices[:, None])
    for row in range(4):
        ones = np.concatenate([points[row], np.ones((17, 1))], 1)
        assert np.allclose(each[row], ones @ matrices[row].T)
        assert np.allclose(each[row], transform_points(points[row], matrices[row]))


def test_crop_is_bilinear_and_black_outside():
    image = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)[..., None].repeat(3, 2)
    crop = warp_crop(image, np.array([[2.0, 0, 0], [0, 2, 0]]), (192, 256))
    assert crop.shape == (256, 192, 3)
    assert crop[10, 20].tolist() == [15] * 3
    assert abs(int(crop[11, 21, 0]) - 16) <= 1
    assert not crop[130:].any()
    assert not crop[:, 170:].any()
