"""What codecs ask of `decode_heatmaps`: mmpose's refinements, and the unit of UDP."""

import logging

import numpy as np
import pytest
import torch
from mmpose_decode import quarter_point, udp_image_point, udp_point
from official_dark import gaussian_maps

from fastpose import backend
from fastpose.backend import use_backend
from fastpose.errors import BackendUnavailableError
from fastpose.ops import decode_heatmaps
from fastpose.reference.decode import decode_heatmaps as reference

MAP, INPUT = (48, 64), (192, 256)


def random_maps(batch: int = 6) -> torch.Tensor:
    return torch.rand(batch, 4, MAP[1], MAP[0])


def at_every_place(width: int = 6, height: int = 7) -> torch.Tensor:
    """One map a cell, the peak there, all other values different: (1, width * height, height, width)."""
    maps = torch.rand(1, width * height, height, width)
    for i in range(width * height):
        maps[0, i].view(-1)[i] = 2.0
    return maps


def test_each_axis_is_near_the_border_by_itself():
    maps = at_every_place()
    found = decode_heatmaps(maps, refine="quarter_each").keypoints[0].numpy()
    np.testing.assert_array_equal(found, [quarter_point(heatmap) for heatmap in maps[0].numpy()])
    official = decode_heatmaps(maps, refine="quarter").keypoints[0].numpy()
    differ = (found != official).any(axis=1).reshape(7, 6)
    assert differ[2:6, 1].all(), "column 1: mmpose moves along y"
    assert differ[1, 2:5].all(), "row 1: mmpose moves along x"
    assert not differ[2:6, 2:5].any(), "inside both are the same"


def test_a_slope_that_is_none_moves_nothing():
    maps = torch.zeros(1, 1, 7, 7)
    maps[0, 0, 3, 3] = 1.0
    assert decode_heatmaps(maps, refine="quarter_each").keypoints.tolist() == [[[3.0, 3.0]]]


def test_udp_weights_decode_as_mmpose_does():
    maps, _ = gaussian_maps((6, 4, MAP[1], MAP[0]), 2.0, margin=1.0, noise=0.02)
    center = torch.rand(6, 2) * 300
    scale = (torch.rand(6, 1) + 0.3) * torch.tensor([[0.75, 1.0]])
    found = decode_heatmaps(maps, center, scale, refine="dark_udp", unit="size-1").keypoints.numpy()
    for i, k in np.ndindex(6, 4):
        cells, box = udp_point(maps[i, k].numpy(), 11), scale[i].numpy() * 200
        expected = udp_image_point(cells, MAP, INPUT, center[i].numpy(), box)
        np.testing.assert_allclose(found[i, k], expected, atol=2e-3)


@pytest.mark.parametrize("refine", ["none", "quarter", "dark"])
@pytest.mark.parametrize("flip", [False, True], ids=["plain", "flip"])
def test_the_unit_is_the_same_behind_every_implementation(refine, flip):
    maps, center, scale = random_maps(), torch.rand(6, 2) * 300, torch.rand(6, 2) + 0.3
    options = {"refine": refine, "unit": "size-1", "shift": False}
    if flip:
        options |= {"flipped": random_maps(), "flip_index": [1, 0, 3, 2]}
    got, expected = decode_heatmaps(maps, center, scale, **options), reference(maps, center, scale, **options)
    torch.testing.assert_close(got.keypoints, expected.keypoints, atol=2e-3, rtol=1e-5)
    assert torch.equal(got.score, expected.score)
    other = decode_heatmaps(maps, center, scale, **{**options, "unit": "size"})
    assert (got.keypoints - other.keypoints).abs().max() > 0.5


def test_without_a_box_there_is_no_unit():
    maps = random_maps()
    plain = decode_heatmaps(maps, unit="size-1").keypoints
    assert torch.equal(plain, decode_heatmaps(maps, unit="size").keypoints)


@pytest.mark.parametrize("refine", ["quarter_each", "dark_udp"])
def test_only_pytorch_refines_like_mmpose(refine, caplog, monkeypatch):
    monkeypatch.setattr(backend, "_logged", set())
    with caplog.at_level(logging.INFO, "fastpose"):
        for _ in range(2):
            decode_heatmaps(random_maps(), refine=refine)
    told = [record.message for record in caplog.records if f"no code for refine={refine}" in record.message]
    assert len(told) <= 1  # none where the extension itself is missing
    if backend.backend_status()["cpp"][0]:
        assert told
        with use_backend("cpp"), pytest.raises(BackendUnavailableError, match=f"no code for refine={refine}"):
            decode_heatmaps(random_maps(), refine=refine)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit: expected size or size-1, got 'udp'"):
        decode_heatmaps(random_maps(), unit="udp")
