"""The fused sum: its specification against nn layers, and the steps by moments against the specification."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastpose.reference import fuse_steps
from fastpose.reference.fuse import Path, Row, fuse

DOUBLE = torch.float64


def test_is_what_the_layers_of_the_network_compute() -> None:
    x0, x1, d = torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 2), torch.randn(2, 3, 8, 4)
    up = nn.Sequential(nn.Conv2d(5, 3, 1, bias=False), nn.BatchNorm2d(3), nn.Upsample(scale_factor=2))
    down = nn.BatchNorm2d(3)
    nn.init.uniform_(up[1].weight), nn.init.normal_(up[1].bias), nn.init.uniform_(down.weight)
    rows = [
        Row(
            x0,
            (Path(x1, up[0].weight, up[1].weight, up[1].bias), Path(d, None, down.weight, down.bias)),
        )
    ]
    fused = fuse(rows)
    torch.testing.assert_close(fused.outputs[0], torch.relu(x0 + up(x1) + down(d)))
    for statistics, norm in zip(fused.statistics[0], (up[1], down), strict=True):
        unbiased = statistics.var * statistics.pixels / (statistics.pixels - 1)
        torch.testing.assert_close(norm.running_mean, 0.1 * statistics.mean)
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * unbiased)
    up.eval(), down.eval()
    given = [
        Path(x1, up[0].weight, up[1].weight, up[1].bias, up[1].running_mean, up[1].running_var),
        Path(d, None, down.weight, down.bias, down.running_mean, down.running_var),
    ]
    frozen = fuse([Row(x0, tuple(given))])
    torch.testing.assert_close(frozen.outputs[0], torch.relu(x0 + up(x1) + down(d)))
    assert frozen.statistics == [[None, None]]


def test_a_row_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="without identity and paths"):
        fuse([Row(None, ())])


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_statistics_of_a_convolution_follow_from_its_input(shift: float) -> None:
    x = torch.randn(3, 7, 5, 6, dtype=DOUBLE) + shift
    weights = [torch.randn(4, 7, dtype=DOUBLE), torch.randn(2, 7, dtype=DOUBLE)]
    mean, cov = fuse_steps.input_moments(x)
    for (mean_z, var_z), weight in zip(fuse_steps.path_statistics(mean, cov, weights), weights, strict=True):
        z = torch.einsum("oi,bihw->bohw", weight, x)
        torch.testing.assert_close(mean_z, z.mean((0, 2, 3)))
        torch.testing.assert_close(var_z, z.var((0, 2, 3), correction=0))
    ((mean_x, var_x),) = fuse_steps.channel_statistics([x])
    torch.testing.assert_close(mean_x, x.mean((0, 2, 3)))
    torch.testing.assert_close(var_x, cov.diagonal())


def test_statistics_of_bfloat16_are_taken_in_float32() -> None:
    x = torch.randn(64, 3, 8, 8).bfloat16()
    (stats,) = fuse_steps.channel_statistics([x])
    assert stats.dtype == fuse_steps.input_moments(x)[1].dtype == torch.float32
    torch.testing.assert_close(stats[1], x.double().var((0, 2, 3), correction=0).float())
