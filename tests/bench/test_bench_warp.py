"""The rows of the warp: their checks pass on a CPU, and fail where a crop is wrong."""

import pytest
import torch

import bench.bench_warp as warp_rows
from bench.measure import measure
from bench.rows import all_rows
from fastpose.reference.warp import warp_crops


def check_row(identity):
    return measure(all_rows()[identity], seconds=0, seed=3, check_only=True)


@pytest.mark.parametrize("identity", ["warp/cpu/b8-256x192", "warp/cpu/worker-256x192"])
def test_cpu_rows_pass_their_checks(identity):
    assert check_row(identity)["id"] == identity


def test_a_wrong_crop_fails_its_row(monkeypatch):
    def mirrored(*arguments, **options):
        return warp_crops(*arguments, **options).flip(2)

    monkeypatch.setattr(warp_rows, "warp_crops", mirrored)
    with pytest.raises(AssertionError, match="crop: not the bytes of cv2"):
        check_row("warp/cpu/b8-256x192")


def test_a_wrong_part_fails_its_row(monkeypatch):
    cut = warp_rows.cut_part
    monkeypatch.setattr(
        warp_rows,
        "cut_part",
        lambda *arguments, flipped, **options: cut(*arguments, flipped=False, **options),
    )
    with pytest.raises(AssertionError, match="crop: the parts do not give the bytes of cv2"):
        check_row("warp/cpu/worker-256x192")


def test_grid_sample_is_the_bilinear_mode():
    images, matrices = warp_rows.draw_padded(2, "256x192", torch.Generator().manual_seed(4))
    got = warp_rows.with_grid_sample("256x192", images, matrices)
    chosen = warp_rows.options("256x192", torch.bfloat16) | {"mode": "bilinear"}
    expected = warp_crops(images, matrices, **chosen)
    assert got.stride() == expected.stride()
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=2**-7)
