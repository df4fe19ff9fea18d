"""Crops in the unit of a codec: which pixels are the crop's corners, and what a mirror does."""

import numpy as np
import pytest

from fastpose.data.affine import (
    crop_transform,
    get_affine_transform,
    get_udp_transform,
    transform_points,
    warp_crop,
)
from fastpose.data.dataset import CropDataset
from fastpose.data.figures import read_figures
from fastpose.errors import ConfigError, DataError

CENTER, SCALE = np.array([120.5, 90.25], np.float32), np.array([0.75, 1.0], np.float32)
SIZE = (96, 128)


def test_the_box_reaches_from_the_first_pixel_to_the_last():
    matrix = get_udp_transform(CENTER, SCALE, 0.0, SIZE)
    corners = np.array([[120.5 - 75, 90.25 - 100], [120.5 + 75, 90.25 + 100], CENTER])
    np.testing.assert_allclose(
        transform_points(corners, matrix), [[0, 0], [95, 127], [47.5, 63.5]], atol=1e-4
    )


@pytest.mark.parametrize("rotation", [0.0, 33.0, -120.0])
def test_the_inverse_leads_back(rotation):
    points = np.random.default_rng(1).uniform(0, 200, (20, 2))
    there = get_udp_transform(CENTER, SCALE, rotation, SIZE)
    back = get_udp_transform(CENTER, SCALE, rotation, SIZE, inverse=True)
    np.testing.assert_allclose(transform_points(transform_points(points, there), back), points, atol=1e-9)


@pytest.mark.parametrize("rotation", [0.0, 40.0, -40.0])
def test_it_turns_as_the_official_one(rotation):
    points = np.random.default_rng(2).uniform(50, 150, (20, 2))
    own = transform_points(points, get_udp_transform(CENTER, SCALE, rotation, SIZE))
    official = transform_points(points, get_affine_transform(CENTER, SCALE, rotation, SIZE))
    # half a pixel for the centre, and a hundredth of the distance from it
    assert np.abs(own - official).max() < 0.5 + 0.011 * 64


def test_only_the_width_counts():
    taller = np.array([SCALE[0], 9.0], np.float32)
    matrix = get_udp_transform(CENTER, SCALE, 20.0, SIZE)
    np.testing.assert_array_equal(get_udp_transform(CENTER, taller, 20.0, SIZE), matrix)


@pytest.mark.parametrize(("codec", "difference"), [("udp", 0), ("msra", 5)])
def test_a_mirrored_crop_is_the_crop_of_the_mirrored_picture(codec, difference):
    picture = np.kron(np.random.default_rng(3).integers(0, 256, (20, 30, 3)), np.ones((10, 10, 1))).astype(
        np.uint8
    )
    width = picture.shape[1]
    crop = warp_crop(picture, crop_transform(codec, CENTER, SCALE, 0.0, SIZE), SIZE)
    other = np.array([width - 1 - CENTER[0], CENTER[1]], np.float32)
    turned = warp_crop(picture[:, ::-1].copy(), crop_transform(codec, other, SCALE, 0.0, SIZE), SIZE)
    off = np.abs(crop.astype(int) - turned[:, ::-1].astype(int))[:, 2:-2].mean()
    assert off < 0.5 if difference == 0 else off > difference


@pytest.mark.parametrize(("codec", "official"), [("msra", True), ("simcc", True), ("udp", False)])
def test_codecs_choose_their_unit(codec, official):
    own = get_affine_transform if official else get_udp_transform
    matrix = own(CENTER, SCALE, 10.0, SIZE)
    np.testing.assert_array_equal(crop_transform(codec, CENTER, SCALE, 10.0, SIZE), matrix)


@pytest.mark.parametrize(
    ("center", "scale"),
    [((np.nan, 1), (1, 1)), ((1, 1), (0, 1)), ((1, 1), (np.inf, 1)), ((1, 1), (-1, 1))],
)
def test_impossible_boxes_are_refused(center, scale):
    with pytest.raises(DataError, match="no crop for center"):
        get_udp_transform(np.array(center, np.float32), np.array(scale, np.float32), 0.0, SIZE)


@pytest.mark.parametrize("codec", ["msra", "udp"])
def test_samples_lie_in_the_unit_of_the_codec(codec):
    table = read_figures(3, seed=4, aspect_ratio=0.75, image_size=(128, 128))
    sample = CropDataset(table, input_size=SIZE, codec=codec)[0]
    matrix = crop_transform(codec, table.center[0], table.scale[0], 0.0, SIZE)
    shown = sample["visible"] > 0
    expected = transform_points(table.joints[0], matrix)
    np.testing.assert_allclose(sample["joints"][shown], expected[shown], atol=1e-4)
    picture = table.images.read(str(table.file_names[table.image_index[0]]))
    np.testing.assert_array_equal(sample["crop"], warp_crop(picture, matrix, SIZE)[..., ::-1])


def test_an_unknown_codec_is_refused():
    table = read_figures(1, seed=4, aspect_ratio=0.75, image_size=(128, 128))
    with pytest.raises(ConfigError, match="codec must be 'msra' or 'udp' or 'simcc', got 'dark'"):
        CropDataset(table, codec="dark")
