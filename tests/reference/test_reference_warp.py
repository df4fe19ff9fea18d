"""The warp against cv2.warpAffine bit for bit, and its float form against exact positions and a bound."""

import cv2
import numpy as np
import pytest
import torch

from fastpose.data.affine import get_affine_transform
from fastpose.reference.warp import warp_crops

MAX_ERROR = 1 / 64 + 1 / 1024  # pixels that OpenCV's positions are off, on each axis


def cv2_warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)


def warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], **options) -> np.ndarray:
    matrices = torch.from_numpy(np.asarray(matrix, np.float64))[None]
    options = {"dtype": torch.uint8, **options}
    return warp_crops(torch.from_numpy(image)[None], matrices, output_size=size, **options)[0].numpy()


def grey_levels(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    crop = warp(image, matrix, size, mode=mode, dtype=torch.float32, std=(1 / 255,) * 3)
    return crop.transpose(1, 2, 0)


def noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def person_matrix(rng: np.random.Generator, width: int, height: int, size: tuple[int, int]) -> np.ndarray:
    """Of a person anywhere in or beside the picture, rotated and scaled as in training and beyond."""
    centre = rng.uniform(-0.3, 1.3, 2) * [width, height]
    scale = np.full(2, max(width, height) / 200 * rng.lognormal(-0.5, 0.8))
    return get_affine_transform(centre, scale, rng.uniform(-90, 90), size)


@pytest.mark.parametrize("size", [(192, 256), (96, 72), (33, 7), (1, 1)], ids=str)
@pytest.mark.parametrize("sides", [(150, 400), (1, 60), (40, 1), (1, 1), (2, 3)], ids=str)
def test_opencv_bit_for_bit(sides, size):
    rng = np.random.default_rng(sides[0] * 1000 + size[0])
    image = noise(rng, *sides)
    shown = 0
    for matrix in [np.eye(2, 3), *(person_matrix(rng, *sides, size) for _ in range(12))]:
        expected = cv2_warp(image, matrix, size)
        np.testing.assert_array_equal(warp(image, matrix, size), expected)
        shown += expected.any()
    assert shown >= (1 if size == (1, 1) else 4)


@pytest.mark.parametrize("power", [-6, -3, -1, 0, 1, 3, 6, 9])
def test_opencv_bit_for_bit_for_any_matrix(power):
    rng = np.random.default_rng(power + 10)
    image = noise(rng, 70, 50)
    for _ in range(30):
        matrix = rng.normal(size=(2, 3)) * 10.0 ** (power + rng.uniform(0, 3, (2, 3)))
        np.testing.assert_array_equal(warp(image, matrix, (40, 30)), cv2_warp(image, matrix, (40, 30)))


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "matrix",
    [
        [[0, 0, 0], [0, 0, 0]],
        [[1, 2, 3], [2, 4, 7]],
        [[1e300, 0, 0], [0, 1e300, 0]],
        [[1e-300, 0, 0], [0, 1e-300, 0]],
        [[1, 0, NAN], [0, 1, 3]],
        [[1, 0, -INF], [0, 1, 3]],
        [[1, 0, -(2**31) / 1024], [0, 1, 3]],
        [[1, 0, (2**31 - 0.5) / 1024], [0, 1, 3]],
        [[1, 0, 1e12], [0, 1, 3]],
        [[1e-5, 0, -20.96], [0, 1, 3]],
        [[1, 0, -32767], [0, 1, 0]],
        [[1, 0, 0.484375], [0, 1, 0.515625]],
        [[1, 0, 0.48388671875], [0, 1, 0.51611328125]],
    ],
    ids=["zero", "singular", "huge", "tiny", "nan", "inf", "least-int", "greatest-int", "far", "wraps",
         "last-int16", "ties", "half-a-unit"],
)  # fmt: skip
def test_opencv_at_the_edges_of_its_integers(matrix):
    matrix = np.array(matrix, np.float64)
    image = noise(np.random.default_rng(3), 50, 40)
    np.testing.assert_array_equal(warp(image, matrix, (64, 48)), cv2_warp(image, matrix, (64, 48)))


def test_opencv_at_the_end_of_a_wide_picture():
    image = noise(np.random.default_rng(4), 32766, 3)
    for left in (-32700.0, -32766.0, -32600.3):
        matrix = np.array([[1, 0, left], [0, 1, 0.3]])
        expected = cv2_warp(image, matrix, (192, 8))
        np.testing.assert_array_equal(warp(image, matrix, (192, 8)), expected)


def test_float32_matrices_are_inverted_in_float64():
    rng = np.random.default_rng(5)
    image, matrix = noise(rng, 90, 60), person_matrix(rng, 90, 60, (48, 64)).astype(np.float32)
    got = warp_crops(
        torch.from_numpy(image)[None],
        torch.from_numpy(matrix)[None],
        output_size=(48, 64),
        dtype=torch.uint8,
    )
    np.testing.assert_array_equal(got[0], cv2_warp(image, matrix.astype(np.float64), (48, 64)))


def exact_bilinear(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In float64, pixel by pixel, black outside."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    framed = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    crop = np.zeros((size[1], size[0], 3))
    for row, column in np.ndindex(size[1], size[0]):
        x, y, _ = inverse @ [column, row, 1]
        if -1 < x < width and -1 < y < height:
            left, top = int(np.floor(x)), int(np.floor(y))
            square = framed[top + 1 : top + 3, left + 1 : left + 3]
            across = square[:, 0] * (1 - (x - left)) + square[:, 1] * (x - left)
            crop[row, column] = across[0] * (1 - (y - top)) + across[1] * (y - top)
    return crop


@pytest.mark.parametrize("seed", range(4))
def test_bilinear_is_exact(seed):
    rng = np.random.default_rng(seed)
    image, matrix = noise(rng, 37, 29), person_matrix(rng, 37, 29, (24, 32))
    got = grey_levels(image, matrix, (24, 32), "bilinear")
    # float32 of numbers up to 255, six roundings
    np.testing.assert_allclose(got, exact_bilinear(image, matrix, (24, 32)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, NAN], [0, 1, 3]],
        [[1e-300, 0, 0], [0, 1, 0]],
        [[1, 0, 1e12], [0, 1, 3]],
        [[1, 0, -INF], [0, 1, 3]],
        [[1e-9, 0, 1], [0, 1, 0]],
    ],
    ids=["nan", "tiny", "far", "inf", "cancels"],
)
def test_bilinear_is_black_where_positions_are_lost(matrix):
    image = np.full((40, 50, 3), 255, np.uint8)
    crop = warp(image, np.array(matrix, np.float64), (64, 48), mode="bilinear")
    assert not crop[:, 1:].any()


@pytest.mark.parametrize(("blur", "least"), [(0, 2.0), (9, 0.5), (41, 0.25)], ids=["noise", "soft", "smooth"])
def test_modes_differ_by_what_the_positions_do(blur, least):
    rng = np.random.default_rng(8)
    image = noise(rng, 300, 200)
    if blur:
        image = cv2.GaussianBlur(image, (blur, blur), 0)
    levels = image.astype(int)
    steps = sum(abs(np.diff(levels, axis=axis)).max() for axis in (0, 1))
    worst = 0.0
    for turn in (-40.0, 0.0, 17.0):
        matrix = get_affine_transform(np.array([150, 100]), np.array([0.5, 0.5]), turn, (96, 128))
        crops = [grey_levels(image, matrix, (96, 128), mode) for mode in ("opencv", "bilinear")]
        worst = max(worst, abs(crops[0] - crops[1]).max())
    assert least < worst <= 0.5 + steps * MAX_ERROR + 1e-4


def test_flat_pictures_agree_to_half_a_level():
    image = np.full((90, 90, 3), 77, np.uint8)
    matrix = get_affine_transform(np.array([45, 45]), np.array([0.2, 0.2]), 30.0, (40, 40))
    np.testing.assert_array_equal(grey_levels(image, matrix, (40, 40), "opencv"), 77.0)
    np.testing.assert_allclose(grey_levels(image, matrix, (40, 40), "bilinear"), 77.0, atol=1e-4)


@pytest.mark.parametrize("mode", ["opencv", "bilinear"])
def test_flip_is_the_mirrored_picture(mode):
    rng = np.random.default_rng(9)
    image, matrix = noise(rng, 61, 45), person_matrix(rng, 61, 45, (32, 32))
    got = warp(image, matrix, (32, 32), mode=mode, flip=torch.tensor([True]))
    mirrored = np.ascontiguousarray(image[:, ::-1])
    expected = warp(mirrored, matrix, (32, 32), mode=mode)
    assert expected.any()
    np.testing.assert_array_equal(got, expected)


def test_parts_pad_and_flat_agree():
    """Three ways to hand over the same pictures; the flat parts lie at odd bytes, in no order."""
    rng = np.random.default_rng(10)
    pictures = [noise(rng, 61, 45), noise(rng, 30, 50), noise(rng, 1, 1)]
    matrices = torch.from_numpy(np.stack([person_matrix(rng, 40, 40, (32, 24)) for _ in pictures]))
    sizes = torch.tensor([(p.shape[1], p.shape[0]) for p in pictures])
    padded = torch.full((3, 50, 61, 3), 99, dtype=torch.uint8)
    for row, picture in zip(padded, pictures, strict=True):
        row[: picture.shape[0], : picture.shape[1]] = torch.from_numpy(picture)
    flat, offsets = torch.full((20000,), 99, dtype=torch.uint8), torch.tensor([7001, 11, 20000 - 3])
    for start, picture in zip(offsets.tolist(), pictures, strict=True):
        flat[start : start + picture.size] = torch.from_numpy(picture.reshape(-1))
    options = {"output_size": (32, 24), "sizes": sizes, "dtype": torch.uint8}
    expected = np.stack([cv2_warp(p, m, (32, 24)) for p, m in zip(pictures, matrices.numpy(), strict=True)])
    assert expected.any()
    np.testing.assert_array_equal(warp_crops(padded, matrices, **options), expected)
    np.testing.assert_array_equal(warp_crops(flat, matrices, offsets=offsets, **options), expected)


def test_a_picture_that_leaves_the_buffer_is_black():
    image = torch.full((30,), 200, dtype=torch.uint8)
    options = {"output_size": (6, 1), "dtype": torch.uint8, "sizes": torch.tensor([[6, 1]])}
    eye = torch.eye(2, 3, dtype=torch.float64)[None]
    for start, seen in ((0, True), (12, True), (13, False), (-1, False), (2**40, False)):
        crop = warp_crops(image, eye, offsets=torch.tensor([start]), **options)
        assert (crop == 200).all().item() is seen, start
        assert bool(crop.any()) is seen, start


def test_colour_normalisation_and_order_of_channels():
    rng = np.random.default_rng(11)
    image, matrix = noise(rng, 40, 40), np.array([[0.8, 0, 3], [0, 0.8, -2]])
    gain, shift = np.array([1.3, 0.5, 1.0], np.float32), np.array([-40, 10, 30], np.float32)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    options = {"gain": torch.from_numpy(gain)[None], "shift": torch.from_numpy(shift)[None]}
    grey = cv2_warp(image, matrix, (32, 32))[..., ::-1].astype(np.float32)
    coloured = np.clip(grey * gain + shift, 0, 255)
    assert ((coloured == 0) | (coloured == 255)).any()
    got = warp(image, matrix, (32, 32), reverse_channels=True, **options)
    np.testing.assert_array_equal(got, np.round(coloured).astype(np.uint8))
    options |= {"mean": tuple(mean), "std": tuple(std), "dtype": torch.float32}
    got = warp(image, matrix, (32, 32), reverse_channels=True, **options)
    expected = ((coloured / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(got, expected, atol=5e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_is_channels_last(dtype):
    image = torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8)
    crops = warp_crops(image, torch.eye(2, 3).repeat(2, 1, 1), output_size=(8, 12), dtype=dtype)
    assert crops.dtype == dtype
    assert crops.shape == (2, 3, 12, 8)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    expected = (image[:, :12, :8].permute(0, 3, 1, 2) * np.float32(1 / 255)).to(dtype)
    assert torch.equal(crops, expected)


def test_no_samples():
    crops = warp_crops(
        torch.zeros(0, dtype=torch.uint8),
        torch.zeros(0, 2, 3),
        output_size=(8, 12),
        sizes=torch.zeros(0, 2, dtype=torch.int64),
        offsets=torch.zeros(0, dtype=torch.int64),
    )
    assert crops.shape == (0, 3, 12, 8)
