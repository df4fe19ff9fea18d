"""Reference DARK refinement: against OpenCV over whole maps, the truth, and at its edges."""

import cv2
import numpy as np
import pytest
import torch
from official_dark import dark_points, gaussian_maps
from tolerances import TOLERANCES

from fastpose.reference.dark import blur_heatmaps, blur_weights
from fastpose.reference.decode import decode_heatmaps

NAN, INF = float("nan"), float("inf")


def dark(heatmaps: torch.Tensor, kernel: int = 11) -> torch.Tensor:
    return decode_heatmaps(heatmaps, refine="dark", blur_kernel=kernel).keypoints


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11, 13, 17, 31, 63])
def test_blur_weights_are_those_of_opencv(kernel):
    expected = cv2.getGaussianKernel(kernel, 0)[kernel // 2 :, 0]
    np.testing.assert_allclose(blur_weights(kernel), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("kernel", "error"),
    [
        (0, ValueError),
        (-3, ValueError),
        (10, ValueError),
        (65, ValueError),
        (11.0, TypeError),
        (True, TypeError),
    ],
)
def test_wrong_kernels(kernel, error):
    with pytest.raises(error, match="blur_kernel: expected an"):
        decode_heatmaps(torch.zeros(1, 1, 8, 8), refine="dark", blur_kernel=kernel)


@pytest.mark.parametrize("refine", [True, False, "darkk", None])
def test_wrong_refinement(refine):
    with pytest.raises(ValueError, match=r"refine: expected one of none, quarter, dark, .*, got"):
        decode_heatmaps(torch.zeros(1, 1, 8, 8), refine=refine)


@pytest.mark.parametrize("kernel", [3, 11, 63])
def test_blur_is_that_of_opencv_with_zeros_around(kernel):
    maps = torch.randn(1, 2, 13, 9)
    for heatmap, got in zip(maps[0].numpy(), blur_heatmaps(maps, kernel)[0], strict=True):
        bordered = cv2.copyMakeBorder(heatmap.astype(np.float64), *[kernel] * 4, cv2.BORDER_CONSTANT)
        expected = cv2.GaussianBlur(bordered, (kernel, kernel), 0)[kernel:-kernel, kernel:-kernel]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03], ids="noise{}".format)
@pytest.mark.parametrize(("kernel", "sigma"), [(11, 2.0), (17, 3.0), (3, 1.0), (9, 1.5)], ids=str)
def test_matches_opencv_over_the_whole_map(kernel, sigma, noise):
    maps, _ = gaussian_maps((2, 17, 64, 48), sigma, noise=noise)
    atol, rtol = TOLERANCES["decode", "dark"]
    np.testing.assert_allclose(dark(maps, kernel), dark_points(maps, kernel), atol=atol, rtol=rtol)


@pytest.mark.parametrize(("kernel", "sigma"), [(11, 2.0), (17, 3.0)], ids=str)
def test_finds_the_centre_of_a_gaussian(kernel, sigma):
    maps, center = gaussian_maps((4, 17, 64, 48), sigma, margin=10.0)
    error = (dark(maps, kernel) - center).norm(dim=-1).max()
    assert error < 0.05
    assert error < 0.2 * (decode_heatmaps(maps).keypoints - center).norm(dim=-1).max()


@pytest.mark.parametrize("kernel", [3, 11])
def test_clamp_below_zero(kernel):
    """Narrow peaks in a negative map: some of the 13 points are clamped, so the scale does not cancel."""
    maps, _ = gaussian_maps((4, 17, 24, 20), 1.2)
    maps = maps - 0.3
    unclamped = dark(maps + 0.3, kernel)
    atol, rtol = TOLERANCES["decode", "dark"]
    np.testing.assert_allclose(dark(maps, kernel), dark_points(maps, kernel), atol=atol, rtol=rtol)
    assert (dark(maps, kernel) - unclamped).abs().max() > 0.01


@pytest.mark.parametrize("y", [0, 1, 2, 3, 12, 13, 14, 15])
@pytest.mark.parametrize("x", [0, 1, 2, 8, 9, 10, 11])
def test_needs_two_pixels_to_every_side(x, y):
    heatmaps = torch.zeros(1, 1, 16, 12)
    heatmaps[0, 0, y, x] = 1.0
    heatmaps[0, 0, max(y - 1, 0), max(x - 1, 0)] += 0.5
    moved = dark(heatmaps).tolist() != [[[x, y]]]
    assert moved == (1 < x < 10 and 1 < y < 14)


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("dx", "dy", "moves"),
    [(7, 0, False), (0, -7, False), (6, 6, False), (8, 0, True), (0, 8, True), (7, 7, True)],
    ids=lambda offset: str(offset),
)
def test_value_that_is_not_finite_in_reach(dx, dy, moves, value):
    """The blur of 11 taps reaches 5 pixels from each of the 13 points."""
    heatmaps, _ = gaussian_maps((1, 1, 40, 40), 2.0, margin=19.4)
    x, y = decode_heatmaps(heatmaps, refine="none").keypoints[0, 0].int().tolist()
    heatmaps[0, 0, y + dy, x + dx] = value
    got = dark(heatmaps)[0, 0]
    assert got.isfinite().all()
    assert (got.tolist() != [x, y]) is moves


@pytest.mark.parametrize(
    ("fill", "expected"),
    [(NAN, [0, 0]), (-1.0, [0, 0]), (0.0, [0, 0]), (INF, [0, 0]), (1.0, [0, 0])],
    ids=str,
)
def test_flat_maps(fill, expected):
    assert dark(torch.full((1, 1, 16, 12), fill)).tolist() == [[expected]]


def test_determinant_of_zero_keeps_the_pixel():
    """A plateau around the peak, wider than the blur reaches: no slope and no curvature."""
    heatmaps = torch.zeros(1, 1, 40, 40)
    heatmaps[0, 0, 3:37, 3:37] = 0.7
    heatmaps[0, 0, 20, 20] = torch.tensor(0.7).nextafter(torch.tensor(1.0))
    assert dark(heatmaps).tolist() == [[[20, 20]]]


def test_never_nan():
    maps = torch.randn(40, 17, 9, 9) * torch.tensor([1e-38, 1.0, 3e38, 1e-45]).repeat(10)[:, None, None, None]
    maps.view(-1)[::1013] = NAN
    assert dark(maps).isfinite().all()
    assert dark(maps, 1).isfinite().all()


def test_compiles_whole():
    maps, _ = gaussian_maps((1, 3, 24, 20), 2.0)
    compiled = torch.compile(decode_heatmaps, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(maps, refine="dark").keypoints, dark(maps))
