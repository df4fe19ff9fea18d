"""A crop out of a part of a picture is, to the byte, the crop out of the whole."""

import copy

import cv2
import numpy as np
import pytest

from fastpose.data.affine import get_affine_transform, warp_crop
from fastpose.data.encode import reduce_pixels
from fastpose.data.region import Cutter, Region, whole_picture

SIZE = (48, 64)
WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def draw(rng, *, whole_numbers):
    """A crop; whole numbers put source coordinates in the middle between two of OpenCV's steps."""
    center = rng.uniform(-20, 340, 2).astype(np.float32)
    scale = rng.uniform(0.05, 1.5, 2).astype(np.float32)
    if whole_numbers:
        center, scale = center.round(), np.float32(rng.integers(1, 24, 2) * 0.06)
    return get_affine_transform(center, scale, rng.choice([0, rng.uniform(-90, 90)]), SIZE)


def least_region(picture, matrix, flipped):
    """The fewest pixels that the crop needs."""
    corners = np.array([[x, y] for x in (0, SIZE[0] - 1) for y in (0, SIZE[1] - 1)], np.float64)
    inverse = cv2.invertAffineTransform(matrix)
    points = corners @ inverse[:, :2].T + inverse[:, 2]
    size = np.array([WIDTH, HEIGHT])
    first = np.clip(np.floor(points.min(0) - 1 / 32), 0, size - 1).astype(int)
    end = np.clip(np.floor(points.max(0) + 1 / 32) + 2, first + 1, size).astype(int)
    if flipped:
        first[0], end[0] = WIDTH - end[0], WIDTH - first[0]
    pixels = picture[first[1] : end[1], first[0] : end[0]].copy()
    return Region(pixels, (int(first[0]), int(first[1])), (WIDTH, HEIGHT))


@pytest.mark.parametrize("flipped", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("whole_numbers", [False, True], ids=["any", "whole-numbers"])
def test_the_same_bytes_as_from_the_whole_picture(picture, flipped, whole_numbers):
    rng, cutter = np.random.default_rng(1), Cutter()
    seen = cv2.flip(picture, 1) if flipped else picture
    dark = 0
    for _ in range(600):
        matrix = draw(rng, whole_numbers=whole_numbers)
        expected = warp_crop(seen, matrix, SIZE)
        region = least_region(picture, matrix, flipped)
        assert np.array_equal(cutter.cut(region, matrix, SIZE, flipped=flipped), expected)
        assert np.array_equal(cutter.cut(whole_picture(picture), matrix, SIZE, flipped=flipped), expected)
        dark += not expected.any()
    assert dark < 100, "most crops show something"


def test_pictures_of_many_sizes_share_a_canvas(picture):
    rng, cutter = np.random.default_rng(2), Cutter()
    for _ in range(100):
        height, width = rng.integers(30, 240, 2)
        part = np.ascontiguousarray(picture[:height, :width])
        matrix = get_affine_transform(np.float32([width / 2, height / 2]), np.float32([0.04, 0.04]), 10, SIZE)
        x, y = width // 2 - 10, height // 2 - 12
        region = Region(part[y : y + 24, x : x + 20].copy(), (int(x), int(y)), (int(width), int(height)))
        assert np.array_equal(cutter.cut(region, matrix, SIZE), warp_crop(part, matrix, SIZE))
    assert cutter._canvas.nbytes <= picture.nbytes


def test_the_region_is_not_written_to(picture):
    region = Region(picture[10:50, 20:80].copy(), (20, 10), (WIDTH, HEIGHT))
    before = region.pixels.copy()
    region.pixels.setflags(write=False)
    for flipped in (False, True):
        Cutter().cut(
            region,
            get_affine_transform(np.float32([50, 30]), np.float32([0.1, 0.1]), 0, SIZE),
            SIZE,
            flipped=flipped,
        )
    assert np.array_equal(region.pixels, before)


def test_picture_holds_the_region_in_its_place(picture):
    cutter = Cutter()
    region = Region(picture[10:50, 20:80].copy(), (20, 10), (WIDTH, HEIGHT))
    whole = cutter.picture(region)
    assert whole.shape == picture.shape
    assert np.array_equal(whole[10:50, 20:80], region.pixels)
    with pytest.raises(ValueError, match="factor 1, got 2"):
        cutter.picture(region._replace(factor=2))


def test_a_copy_of_a_cutter_has_memory_of_its_own(picture):
    cutter = Cutter()
    cutter.picture(Region(picture[10:50, 20:80].copy(), (20, 10), (WIDTH, HEIGHT)))
    assert copy.deepcopy(cutter)._canvas.size == 0


@pytest.mark.parametrize("flipped", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("factor", [2, 3])
def test_reduced_regions_stay_in_place(factor, flipped):
    # On a slope the mean of pixels is the value in their middle, so a wrong place by half a pixel shows.
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    slope = np.stack([x * 0.7 + 10, y * 0.9 + 10, (x + y) * 0.4 + 5], -1).astype(np.uint8)
    matrix = get_affine_transform(np.float32([150.3, 120.6]), np.float32([0.6, 0.8]), 17, SIZE)
    expected = warp_crop(cv2.flip(slope, 1) if flipped else slope, matrix, SIZE)
    first, end = np.array([32, 16]), np.array([301, 223])
    pixels = reduce_pixels(slope[first[1] : end[1], first[0] : end[0]], factor)
    region = Region(pixels, (32, 16), (WIDTH, HEIGHT), factor)
    got = Cutter().cut(region, matrix, SIZE, flipped=flipped)
    inside = expected.min(-1) > 0
    assert inside.mean() > 0.5
    error = np.abs(got.astype(int) - expected)[inside]
    assert error.max() <= 2
    assert abs((got.astype(int) - expected)[inside].mean()) < 0.6


def test_reduction_pads_with_black_and_means():
    pixels = np.full((5, 7, 3), 90, np.uint8)
    assert reduce_pixels(pixels, 1) is not None
    half = reduce_pixels(pixels, 2)
    assert half.shape == (3, 4, 3)
    assert half[:2, :3].min() == half.max() == 90
    assert half[0, 3, 0] == 45
    assert half[2, 3, 0] in (22, 23)
