"""ops.decode_heatmaps with DARK refinement: the native decoder against the reference and OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from official_dark import dark_points, gaussian_maps
from tolerances import TOLERANCES
from torch import Tensor

from fastpose import _ext
from fastpose.backend import use_backend
from fastpose.ops import Decoded, decode_heatmaps
from fastpose.reference import decode as reference

NAN, INF = float("nan"), float("inf")
ATOL, RTOL = TOLERANCES["decode", "dark"]
LAYOUTS = pytest.mark.parametrize(
    "layout",
    [torch.contiguous_format, torch.channels_last, None],
    ids=["contiguous", "channels_last", "transposed"],
)


@pytest.fixture(autouse=True)
def cpp() -> Iterator[None]:
    _, reason = _ext.load()
    if reason:
        pytest.skip(reason)
    with use_backend("cpp"):
        yield


def laid_out(maps: Tensor, layout: torch.memory_format | None) -> Tensor:
    if layout is None:
        return maps.transpose(2, 3).contiguous().transpose(2, 3)
    return maps.contiguous(memory_format=layout)


def assert_like_the_reference(maps: Tensor, *args: Any, **options: Any) -> Decoded:
    got = decode_heatmaps(maps, *args, refine="dark", **options)
    expected = reference.decode_heatmaps(maps, *args, refine="dark", **options)
    assert torch.equal(got.score, expected.score)
    assert torch.equal(got.valid, expected.valid)
    torch.testing.assert_close(got.keypoints, expected.keypoints, atol=ATOL, rtol=1e-6)
    return got


@LAYOUTS
@pytest.mark.parametrize("flip", ["plain", "flip", "flip_shift"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gaussian_maps(dtype: torch.dtype, flip: str, layout: torch.memory_format | None) -> None:
    maps = laid_out(gaussian_maps((2, 17, 64, 48), 2.0, margin=1.0)[0].to(dtype), layout)
    options: dict[str, Any] = {}
    if flip != "plain":
        options = {
            "flipped": laid_out(maps.flip(3).roll(-1, 3) * 0.9, layout),
            "flip_index": torch.arange(17),
            "shift": flip == "flip_shift",
        }
    got = assert_like_the_reference(maps, torch.rand(2, 2) * 600, torch.rand(2, 2) + 0.2, **options)
    assert not torch.equal(
        got.keypoints, decode_heatmaps(maps, **options).keypoints
    )  # something was refined at all


@pytest.mark.parametrize(("kernel", "sigma"), [(11, 2.0), (17, 3.0), (3, 1.0), (63, 5.0)], ids=str)
@pytest.mark.parametrize("shape", [(2, 17, 64, 48), (1, 3, 13, 11), (2, 4, 5, 40), (1, 2, 4, 4)], ids=str)
def test_matches_opencv_over_the_whole_map(shape: Any, kernel: int, sigma: float) -> None:
    maps, _ = gaussian_maps(shape, sigma, margin=1.0, noise=0.01)
    got = decode_heatmaps(maps, refine="dark", blur_kernel=kernel).keypoints
    np.testing.assert_allclose(got, dark_points(maps, kernel), atol=ATOL, rtol=RTOL)


@pytest.mark.parametrize(("kernel", "sigma"), [(11, 2.0), (17, 3.0)], ids=str)
def test_finds_the_centre_of_a_gaussian(kernel: int, sigma: float) -> None:
    maps, center = gaussian_maps((4, 17, 64, 48), sigma, margin=10.0)
    got = decode_heatmaps(maps, refine="dark", blur_kernel=kernel).keypoints
    assert (got - center).norm(dim=-1).max() < 0.05


@LAYOUTS
@pytest.mark.parametrize("kernel", [1, 3, 11])
def test_clamped_points(kernel: int, layout: torch.memory_format | None) -> None:
    """Points below zero near the peak: the scale of the whole map enters."""
    maps = gaussian_maps((4, 17, 24, 20), 1.2)[0] - 0.3
    got = assert_like_the_reference(laid_out(maps, layout), blur_kernel=kernel)
    if kernel > 1:
        np.testing.assert_allclose(got.keypoints, dark_points(maps, kernel), atol=ATOL, rtol=RTOL)


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=["nan", "inf", "-inf"])
@pytest.mark.parametrize("offset", [(7, 0), (0, -7), (6, 6), (8, 0), (0, 8), (7, 7)], ids=str)
@pytest.mark.parametrize("lift", [0.0, -0.4], ids=["positive", "clamped"])
def test_value_that_is_not_finite(offset: tuple[int, int], value: float, lift: float) -> None:
    maps = gaussian_maps((1, 1, 40, 40), 1.5, margin=19.4)[0] + lift
    x, y = reference.decode_heatmaps(maps, refine="none").keypoints[0, 0].int().tolist()
    maps[0, 0, y + offset[1], x + offset[0]] = value
    assert_like_the_reference(maps)


def test_random_bits_are_never_nan() -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (8, 40, 13, 11), dtype=torch.int64).to(torch.int32)
    bits[4:] &= 0x7FFFFFFF
    for maps in (bits.view(torch.float32), torch.randn(8, 40, 13, 11) * 1e-41):
        for kernel in (1, 3, 11):
            got = decode_heatmaps(maps, refine="dark", blur_kernel=kernel)
            assert got.keypoints.isfinite().all()
            assert torch.equal(got.score, reference.argmax_heatmaps(maps)[1])


def test_threads_do_not_change_the_answer() -> None:
    maps, _ = gaussian_maps((40, 17, 64, 48), 2.0, noise=0.02)
    last = maps.contiguous(memory_format=torch.channels_last)
    one = decode_heatmaps(maps, refine="dark").keypoints
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(decode_heatmaps(maps, refine="dark").keypoints, one)
        assert torch.equal(decode_heatmaps(last, refine="dark").keypoints, one)
    finally:
        torch.set_num_threads(before)
