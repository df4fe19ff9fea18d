"""The declared rows: the official generator they measure against, and checks that pass and can fail."""

import numpy as np
import pytest
import torch
from tolerances import TOLERANCES

import bench.bench_decode as decode_rows
import bench.bench_heatmap as heatmap_rows
from bench.measure import measure
from bench.official_heatmap import generate_target, generate_targets
from bench.rows import Unavailable, all_rows
from fastpose.ops import gaussian_heatmaps


def check_row(identity):
    try:
        return measure(all_rows()[identity], seconds=0, seed=3, check_only=True)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "sigma"), [("256x192", 2), ("384x288", 3), ("256x256", 2)])
def test_official_generator_in_numpy(golden_functions, name, sigma):
    height, width = map(int, name.split("x"))
    joints, visible, expected, weight = (
        golden_functions[f"target_{name}_{part}"] for part in ("joints", "visible", "heatmaps", "weight")
    )
    sizes = {"heatmap_size": (width // 4, height // 4), "input_size": (width, height), "sigma": sigma}
    got, got_weight = generate_targets(joints, visible, **sizes)
    atol, rtol = TOLERANCES["heatmap", "golden"]
    np.testing.assert_allclose(got, expected, atol=atol, rtol=rtol)
    np.testing.assert_array_equal(got_weight, weight[..., 0])


def test_official_generator_cuts_patches_at_the_border():
    joints = np.array([[1.0, 1.0], [190.0, 254.0], [-40.0, 3.0]])
    sizes = {"heatmap_size": (48, 64), "input_size": (192, 256), "sigma": 2.0}
    target, weight = generate_target(joints, np.ones(3), **sizes)
    expected, expected_weight = gaussian_heatmaps(torch.from_numpy(joints)[None], torch.ones(1, 3), **sizes)
    np.testing.assert_allclose(target, expected[0], atol=1e-7)
    np.testing.assert_array_equal(weight, expected_weight[0])
    assert weight.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "identity",
    [
        row.id
        for row in (*heatmap_rows.rows, *decode_rows.rows)
        if row.device == "cpu" and "b64-96" not in row.id
    ],
)
def test_cpu_rows_pass_their_checks(identity):
    assert check_row(identity)["id"] == identity


def test_a_wrong_target_fails_its_row(monkeypatch):
    def shifted(joints, visible, **options):
        return gaussian_heatmaps(joints + 0.6, visible, **options)

    monkeypatch.setattr(heatmap_rows, "gaussian_heatmaps", shifted)
    with pytest.raises(AssertionError, match="heatmaps: relative L2 error"):
        check_row("heatmap/cpu/b64-64x48")


def test_a_wrong_keypoint_fails_its_row(monkeypatch):
    compiled = decode_rows.compiled_decoder

    def shifted(*inputs, **options):
        decoded = compiled(*inputs, **options)
        return decoded._replace(keypoints=decoded.keypoints + 1e-3)

    monkeypatch.setattr(decode_rows, "compiled_decoder", shifted)
    with pytest.raises(AssertionError, match="Arrays are not almost equal up to 2 ULP"):
        check_row("decode/cpu/float32")


def test_every_row_says_what_it_is():
    rows = all_rows()
    assert len(rows) >= 19
    assert all(row.what and "|" not in row.what for row in rows.values())
    assert {row.device for row in rows.values()} == {"cpu", "cuda"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "identity", [row.id for row in (*heatmap_rows.rows, *decode_rows.rows) if row.device == "cuda"]
)
def test_cuda_rows_pass_their_checks(identity):
    assert check_row(identity)["id"] == identity
